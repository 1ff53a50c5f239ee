"""Models named as in published checkpoints, whose tensors find their places by name."""
