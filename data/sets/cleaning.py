"""What the texts of a published set need before they can be learned from."""

import re

_QUOTE = re.compile(r"writes in|writes:|wrote:|says:|said:|^In article|^Quoted from|^\||^>")
_HEADER_LINE = re.compile(r"^(From|Subject|Organization|Lines): ", re.MULTILINE)
_HEADING = re.compile(r" = [^=].* = \n?")


def strip_newsgroups(messages: list[str]) -> list[str]:
    """Messages of 20 Newsgroups without what gives the group away: headers, footers, quotes.

    The three rules are those of scikit-learn's `fetch_20newsgroups(remove=...)`, so that accuracies
    can be compared with published ones. Copies in circulation differ: one that is stripped already
    is left as it is, because a second pass would cut off the first paragraph of every message.
    """
    return [strip_message(message) for message in messages] if is_raw(messages) else messages


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
    """Whether most of the first `sample` messages still begin with a header."""
    sampled = messages[:sample]
    raw = sum(bool(_HEADER_LINE.search(m.partition("\n\n")[0])) for m in sampled)
    return 2 * raw > len(sampled)


def wikitext_articles(lines: list[str]) -> list[str]:
    """Articles of WikiText from its lines; each begins with a heading ` = Title = `."""
    articles = []
    for line in lines:
        if _HEADING.fullmatch(line) or not articles:
            articles.append([])
        articles[-1].append(line)
    return ["".join(article) for article in articles]
