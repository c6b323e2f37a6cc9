"""The classifier for texts of up to a given length, however long that is."""

from minisum.models import classifier
from minisum.models.long_document import LongDocumentClassifier

# The longest text that has a position for each of its tokens; those of longer ones repeat.
LONGEST_TABLE, PERIOD = 2**14, 512


def build(
    mixer, vocab, width, classes, max_len, heads=4, head_width=None, draw="glorot", **options
):
    """`classifier.build`, where a text is too long for a table with a position for each token."""
    sizes = vocab, width, classes
    multiplies = mixer == "summation" and options.get("positions") in (None, "multiply")
    if multiplies and max_len > LONGEST_TABLE:
        return LongDocumentClassifier(*sizes, PERIOD, **options)
    return classifier.build(mixer, *sizes, max_len, heads, head_width, draw, **options)
