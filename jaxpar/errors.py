"""Two exceptions: what the caller gave is wrong, or the solve did not come to its end."""


class InputError(ValueError):
    """A value from outside is unusable; the message is one line that names it and what would be right.

    Programs print the line and exit with status 2. Any other exception is a defect and keeps its traceback.

    >>> jaxpar.Sliding(0)
    Traceback (most recent call last):
    jaxpar.errors.InputError: size of Sliding is 0; it must be a whole number, 1 or more
    """


class NotConverged(RuntimeError):
    """A solve ended at its round limit, or at numbers that are not finite; `throw=False` returns what it has.

    >>> jaxpar.solve(jaxpar.Recurrence(lambda s, _: (2 * s, None), 1e30, length=40), "newton")
    Traceback (most recent call last):
    jaxpar.errors.NotConverged: NONFINITE after ...; throw=False returns it all the same
    """
