"""The 20 Newsgroups messages without what gives the group away: headers, footers, quotes.

The three rules are those of scikit-learn's `fetch_20newsgroups(remove=...)`, so that accuracies
can be put beside published ones.
"""

import re

_QUOTE = re.compile(r"writes in|writes:|wrote:|says:|said:|^In article|^Quoted from|^\||^>")
_HEADER_LINE = re.compile(r"^(From|Subject|Organization|Lines): ", re.MULTILINE)


def strip_message(message: str) -> str:
    """The body of a message: no header, no signature, no quoted lines. May be empty."""
    return strip_quotes(strip_footer(strip_header(message)))


def strip_header(message: str) -> str:
    """What follows the first blank line."""
    return message.partition("\n\n")[2]


def strip_footer(message: str) -> str:
    """The message up to its last line that is blank or only dashes; whole if there is none."""
    lines = message.strip().split("\n")
    for number in range(len(lines) - 1, 0, -1):
        if not lines[number].strip().strip("-"):
            return "\n".join(lines[:number])
    return message


def strip_quotes(message: str) -> str:
    """The lines that neither quote nor announce a quotation."""
    return "\n".join(line for line in message.split("\n") if not _QUOTE.search(line))


def is_raw(messages: list[str], sample=200) -> bool:
    """Whether most of the first messages still begin with a header.

    Copies in circulation differ, and a second pass of `strip_header` would cut the first
    paragraph off every message.
    """
    sampled = messages[:sample]
    raw = sum(bool(_HEADER_LINE.search(m.partition("\n\n")[0])) for m in sampled)
    return 2 * raw > len(sampled)
