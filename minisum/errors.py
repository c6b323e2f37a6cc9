"""The one exception that is the user's to fix."""


class UserError(ValueError):
    """Input that cannot be used, told in one sentence.

    Everything that a person typed, wrote to a file or forgot to install ends here; the command
    line prints the sentence on standard error and exits with status 2. Any other exception is a
    defect of minisum and keeps its traceback. What was quoted from a file can do nothing to a
    terminal.
    """

    def __str__(self):
        return visible(super().__str__())


def visible(text):
    """`text` with control characters, and those that turn the direction of writing, spelled out."""
    return text.translate(_ESCAPES)


_CONTROL = [*range(9), *range(11, 32), *range(127, 160), 0x2028, 0x2029]
_DIRECTION = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in [*_CONTROL, *_DIRECTION]}
