"""From scores and labels to figures that can be trusted."""
