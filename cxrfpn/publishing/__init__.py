"""A run -> a model repository and a Space on the Hugging Face Hub."""
