"""Denoisers that are trained here: of images of a class, and of actions."""
