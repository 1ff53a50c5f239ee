"""Networks whose every output reads what comes before it alone: MADE, PixelCNN++, dense blocks."""
