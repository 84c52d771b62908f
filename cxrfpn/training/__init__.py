"""From a recipe and a plan to a run folder that is a model package."""
