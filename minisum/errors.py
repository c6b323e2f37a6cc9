"""The one exception that is the user's to fix."""


class UserError(ValueError):
    """Input that cannot be used, told in one sentence.

    Everything that a person typed, wrote to a file or forgot to install ends here; the command
    line prints the sentence on standard error and exits with status 2. Any other exception is a
    defect of minisum and keeps its traceback.
    """
