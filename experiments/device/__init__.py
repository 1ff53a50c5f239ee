"""Everything there is to measure, on the accelerator at hand, in one command and one file that names it."""
