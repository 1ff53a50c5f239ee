"""How a guess improves: the affine family, and what wraps its members."""
