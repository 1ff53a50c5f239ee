"""Two exceptions: what the caller gave is wrong, or the solve did not come to its end."""


class InputError(ValueError):
    """A value from outside is unusable; the message is one line that names it and what would be right.

    Programs print the line and exit with status 2. Any other exception is a defect and keeps its traceback.
    """


class NotConverged(RuntimeError):
    """A solve ended at its round limit, or at numbers that are not finite; `throw=False` returns what it has."""
