"""Samplers: tables of coefficients, one function for each sampler, and the step that goes by a row of them."""
