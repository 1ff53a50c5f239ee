"""The one exception that means: what the caller gave is wrong, not the program."""


class InputError(ValueError):
    """A value from outside is unusable; the message is one line that names it and what would be right.

    Programs print the line and exit with status 2. Any other exception is a defect and keeps its traceback.
    """
