"""A diffusion model of images of classes."""
