"""Commands for the makers of the model and its pages; nothing of the package imports them."""
