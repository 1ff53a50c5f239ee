"""A language model of bytes."""
