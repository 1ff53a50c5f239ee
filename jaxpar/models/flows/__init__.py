"""Normalizing flows: TarFlow, a Glow-like flow, and the masked convolutions that it is made of."""
