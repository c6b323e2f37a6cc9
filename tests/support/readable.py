"""Token numbers back to what can be read, and written ListOps trees to token numbers."""

from data.generated.listops import IDS, SYMBOLS


def tree_of(text):
    """Token numbers of a written tree, with or without the parentheses of the original files."""
    return [IDS[token] for token in text.replace("(", " ").replace(")", " ").split()]


def written(tree):
    """The written tree, tokens apart by blanks."""
    return " ".join(SYMBOLS[token - 1] for token in tree)


def text_of_bytes(ids):
    """The text of byte numbers; padding is left out."""
    return bytes(int(number) - 1 for number in ids if number).decode()


def text_of(tokenizer, ids):
    """Exact for byte pairs; for words, the words between blanks."""
    return tokenizer.decode([int(number) for number in ids], skip_special_tokens=False)
