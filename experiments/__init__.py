"""The programs, python -m experiments.VERB, and the workloads that they run; `python -m experiments` lists both."""
