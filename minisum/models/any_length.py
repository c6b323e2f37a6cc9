"""The classifier for any maximum text length."""

from minisum.models import classifier
from minisum.models.long_document import LongDocumentClassifier

# The longest text that has a position for each of its tokens; those of longer ones repeat.
LONGEST_TABLE, PERIOD = 2**14, 512


def build(
    mixer, vocab, width, classes, max_len, heads=4, head_width=None, draw="glorot", **options
):
    """`classifier.build`, or a `LongDocumentClassifier` if max_len exceeds LONGEST_TABLE."""
    sizes = vocab, width, classes
    multiplies = mixer == "summation" and options.get("positions") in (None, "multiply")
    if multiplies and max_len > LONGEST_TABLE:
        return LongDocumentClassifier(*sizes, PERIOD, **options)
    return classifier.build(mixer, *sizes, max_len, heads, head_width, draw, **options)
