"""Where fresh entries of a window start."""
