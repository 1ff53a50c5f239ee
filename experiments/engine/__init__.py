"""Solvers on a battery of recurrences."""
