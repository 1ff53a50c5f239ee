"""A normalizing flow of images."""
