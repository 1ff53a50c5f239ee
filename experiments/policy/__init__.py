"""A diffusion policy that steers a point mass."""
