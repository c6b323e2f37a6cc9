"""The exception for errors that the user can fix, and hints for fixing them."""

from importlib.util import find_spec

# What every run needs that is kept or reads texts.
NEEDED = ("tokenizers", "safetensors")


class UserError(ValueError):
    """Input that cannot be used, told in one sentence.

    Raised for wrong flags, wrong files and missing packages; the command line prints the sentence
    on standard error and exits with status 2. Any other exception is a defect of minisum and keeps
    its traceback. Control characters quoted from a file are escaped.
    """

    def __str__(self):
        return visible(super().__str__())


def did_you_mean(name, known):
    """ " (did you mean 'attention'?)", or nothing if no known name is near."""
    from difflib import get_close_matches

    words = [one for one in known if isinstance(one, str)]
    near = get_close_matches(name, words, n=1, cutoff=0.7) if isinstance(name, str) else []
    return f" (did you mean {near[0]!r}?)" if near else ""


def require_known(what, name, known):
    """UserError unless `name`, which stands for a `what`, is one of `known`."""
    if name not in known:
        near = did_you_mean(name, known)
        listed = f": choose one of {', '.join(map(str, known))}"
        raise UserError(f"{what} {name!r}{near or listed}")


def missing(why, package):
    """The UserError for a package that is not installed, with one command for all that are not."""
    others = [name for name in NEEDED if name != package and find_spec(name) is None]
    return UserError(f"{why}: python -m pip install {' '.join([package, *others])}")


def visible(text):
    """`text` with control characters, and those that turn the direction of writing, spelled out."""
    return text.translate(_ESCAPES)


_CONTROL = [*range(9), *range(11, 32), *range(127, 160), 0x2028, 0x2029]
_DIRECTION = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in [*_CONTROL, *_DIRECTION]}
