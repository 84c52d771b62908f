"""From paths to a table of findings; the inference itself is the pipeline's."""
