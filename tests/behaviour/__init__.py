"""What the public surface returns and prints: recorded before the house is rearranged, compared after it."""
