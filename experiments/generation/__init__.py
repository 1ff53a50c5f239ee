"""Texts decoded by a language model, several tokens a round."""
