"""The rounds themselves, their rings of slots, and the derivatives of what they find; nobody outside core looks in."""
