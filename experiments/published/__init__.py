"""Published denoisers, from safetensors."""
