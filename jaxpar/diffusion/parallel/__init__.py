"""Methods of the literature that draw an image in parallel, by their names."""
