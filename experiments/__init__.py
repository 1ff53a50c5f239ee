"""The programs: python -m experiments.train | sample | benchmark."""
