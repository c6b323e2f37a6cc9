"""Texts to numbers: words or byte pairs by the `tokenizers` library, or single bytes without it.

Number 0 is padding. In a vocabulary of words or byte pairs, 1 is the unknown word.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from minisum.checkpoint import TOKENIZER_BYTES
from minisum.errors import UserError, missing, require_known
from minisum.files import read_bytes, write_bytes
from minisum.text.batches import Ragged, check_ids, pad

PAD, UNKNOWN = "[PAD]", "[UNK]"
PAD_ID, UNKNOWN_ID = 0, 1
KINDS = ("word", "wordpunct", "bpe", "character")
# The characters at which the Keras Tokenizer cuts, the blank included.
WORD_BREAKS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n '
BYTES_VOCAB = 1 + 256  # padding and every byte
_BATCH = 1024
PIECE, FORCED = 1 << 16, 1 << 20  # letters: a tokenizer takes some hundred bytes for each
_BORDER = re.compile(r"(?<=\S) (?=\S)")


def train_tokenizer(texts: Iterable[str], kind="word", vocab_size=10_000):
    """A tokenizer whose vocabulary has at most `vocab_size` entries, the two special ones included.

    kind "word": lower-cased words between WORD_BREAKS, the most frequent ones, ties in
    alphabetical order; "wordpunct": the same, but words are runs of letters, digits and _, and runs
    of other characters are tokens too; "bpe": byte-level pairs (Radford et al., 2019), to which
    nothing is unknown; "character": the same, but no pair reaches beyond a character: one token
    each, or a rare one's bytes. The same texts give the same vocabulary in every process.
    """
    require_known("tokenizer", kind, KINDS)
    if vocab_size < (least := least_vocabulary(kind)):
        raise UserError(f"a vocabulary of {vocab_size} is too small: {kind} needs at least {least}")
    library = tokenizers_library()
    options = {"vocab_size": vocab_size, "special_tokens": [PAD, UNKNOWN], "show_progress": False}
    tokenizer, trainer = _makers()[kind](library, options)
    tokenizer.train_from_iterator((piece for text in texts for piece in pieces(text)), trainer)
    if tokenizer.get_vocab_size() < least:
        raise UserError("the texts hold no word to make a vocabulary of")
    return ready(tokenizer)


def least_vocabulary(kind):
    """The size of the smallest vocabulary: both special entries, and every byte or one word."""
    return len((PAD, UNKNOWN)) + (1 if kind.startswith("word") else 256)


def encode(
    tokenizer, texts: Iterable[str], drop_unknown=False, at_most=None, keep="first"
) -> list[np.ndarray]:
    """Token numbers of every text, int32; an empty array for a text without tokens.

    `texts` is taken in lazily, so a progress bar around it shows the progress. `drop_unknown`
    leaves out unknown words instead of numbering them, as Keras does without an oov_token.
    at_most: so many tokens of a text are needed, its "first" or "last" ones: of a long text no
    more is read than gives them.
    """
    texts, encoded = iter(texts), []
    while batch := list(islice(texts, _BATCH)):
        try:
            short = [text if len(text) <= PIECE else "" for text in batch]
            results = tokenizer.encode_batch_fast(short, add_special_tokens=False)
            found = [_known(result.ids, drop_unknown) for result in results]
            for i, text in enumerate(batch):
                if len(text) > PIECE:
                    found[i] = _encode_long(tokenizer, text, drop_unknown, at_most, keep)
        except (TypeError, UnicodeEncodeError) as error:
            raise UserError(
                f"one of the texts {len(encoded)} to {len(encoded) + len(batch) - 1} "
                f"is not valid Unicode text"
            ) from error
        encoded += found
    return encoded


def _encode_long(tokenizer, text, drop_unknown, at_most, keep):
    found, count = [], 0
    for piece in pieces(text) if keep == "first" else reversed(list(pieces(text))):
        if at_most is not None and count >= at_most:
            break
        ids = tokenizer.encode(piece, add_special_tokens=False).ids
        found.append(_known(ids, drop_unknown))
        count += len(found[-1])
    in_order = found if keep == "first" else found[::-1]
    return np.concatenate([np.zeros(0, np.int32), *in_order])


def pieces(text: str) -> Iterator[str]:
    """The text, in pieces of about PIECE letters, whose tokens are those of the text.

    It is cut before a single blank between two words, where no word and no byte pair goes on, and
    elsewhere only if there is no such blank in FORCED letters.
    """
    start = 0
    while len(text) - start > PIECE:
        border = _BORDER.search(text, start + PIECE, min(len(text), start + FORCED))
        end = border.start() if border else min(len(text), start + FORCED)
        yield text[start:end]
        start = end
    yield text[start:]


def _known(ids, drop_unknown):
    ids = np.array(ids, np.int32)
    return ids[ids != UNKNOWN_ID] if drop_unknown else ids


def encode_bytes(texts, max_len: int) -> Ragged:
    """The first `max_len` bytes of each text as numbers below BYTES_VOCAB: a byte's value plus one.

    "Añb" becomes 66 196 178 99. Long Range Arena's "Text" task (Tay et al. 2021) is IMDb so
    encoded, cut to the first 1,000 to 4,000 bytes.
    """
    encoded = [text.encode("utf-8", "surrogatepass")[:max_len] for text in texts]
    return Ragged.from_list([np.frombuffer(row, np.uint8).astype(np.int32) + 1 for row in encoded])


def save_tokenizer(tokenizer, path) -> None:
    """Write the tokenizer as JSON; an interrupted write leaves an older file as it was."""
    write_bytes(path, tokenizer.to_str().encode())


def load_tokenizer(path):
    """What `save_tokenizer` wrote to `path`, or one of BERT's kind. UserError if it is damaged."""
    tokenizer = read_tokenizer(path)
    if type(tokenizer.model).__name__ == "WordPiece":
        from minisum.text import wordpieces

        return ready(wordpieces.checked(tokenizer, path))
    numbers = sorted(tokenizer.get_vocab().values())
    special = (tokenizer.token_to_id(PAD), tokenizer.token_to_id(UNKNOWN))
    unknown = getattr(tokenizer.model, "unk_token", None)  # bytes need none
    right = special == (PAD_ID, UNKNOWN_ID) and unknown in (None, UNKNOWN)
    if not right or numbers != list(range(len(numbers))) or _form(tokenizer) not in _forms():
        raise UserError(f"the tokenizer {path} was not made by this program, or is damaged")
    return ready(tokenizer)


def _form(tokenizer):
    """All that a tokenizer does, as JSON, without its vocabulary: a stranger's could do a lot."""
    content = json.loads(tokenizer.to_str())
    return content | {"model": content["model"] | {"vocab": {}, "merges": []}}


def _forms():
    """What the tokenizers of this program do, as this version of the library writes it."""
    for make in _makers().values():
        tokenizer, _ = make(tokenizers_library(), {})
        tokenizer.add_special_tokens([PAD, UNKNOWN])
        yield _form(tokenizer)


def read_tokenizer(path):
    """The tokenizer in a file, whatever its vocabulary. UserError if there is none."""
    library = tokenizers_library()
    try:
        return library.Tokenizer.from_str(read_bytes(path, TOKENIZER_BYTES).decode())
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"the tokenizer {path} cannot be read: {error.strerror}") from error
    except Exception as error:
        # The library raises bare exceptions; a file may also not be UTF-8.
        raise UserError(f"the tokenizer {path} is damaged: {error}") from error


@dataclass(frozen=True)
class TextReader:
    """Texts to the batches of a model, in training as in prediction.

    max_len: tokens of a text that are read: its first ones, or its last where padding is "left".
    padding: the side on which it stands. full: pad to max_len, whatever the batch's longest text.
    unmasked: padding counts as words do. drop_unknown: unknown words are left out, not marked.
    """

    tokenizer: object
    max_len: int
    padding: str = "right"
    full: bool = False
    unmasked: bool = False
    drop_unknown: bool = False

    def encode(self, texts) -> Ragged:
        """Token numbers of `texts`, each cut to what the model reads."""
        keep = "last" if self.padding == "left" else "first"
        ends = self.tokenizer.encode("").ids  # [CLS] and [SEP], of a pretrained encoder
        room = max(0, self.max_len - len(ends))
        found = encode(self.tokenizer, texts, self.drop_unknown, room, keep)
        encoded = Ragged.from_list(found).truncate(room, keep)
        if ends:
            encoded = Ragged.from_list([[ends[0], *text, ends[1]] for text in encoded])
        check_ids(encoded, self.tokenizer.get_vocab_size())
        return encoded

    def batch(self, encoded) -> dict:
        """ids (B, n) and mask (B, n) of encoded texts."""
        pad_to = self.max_len if self.full else None
        ids, mask = pad(encoded, self.max_len, side=self.padding, pad_to=pad_to)
        return {"ids": ids, "mask": mask | self.unmasked}


def _word(library, options):
    tokenizer = library.Tokenizer(library.models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = library.normalizers.Lowercase()
    tokenizer.pre_tokenizer = library.pre_tokenizers.Split(
        library.Regex(f"[{re.escape(WORD_BREAKS)}]+"), behavior="removed"
    )
    return tokenizer, library.trainers.WordLevelTrainer(**options)


def _wordpunct(library, options):
    tokenizer, trainer = _word(library, options)
    tokenizer.pre_tokenizer = library.pre_tokenizers.Whitespace()  # \w+|[^\w\s]+
    return tokenizer, trainer


def _bpe(library, options):
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, library.trainers.BpeTrainer(initial_alphabet=alphabet, **options)


def _character(library, options):
    tokenizer, trainer = _bpe(library, options)
    tokenizer.pre_tokenizer = split_characters(library)
    return tokenizer, trainer


def split_characters(library):
    """What keeps byte pairs within one character."""
    alone = library.pre_tokenizers.Split(library.Regex("(?m:.)"), behavior="isolated")
    bytes_of = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return library.pre_tokenizers.Sequence([alone, bytes_of])


def _makers():
    return dict(zip(KINDS, (_word, _wordpunct, _bpe, _character), strict=True))


def ready(tokenizer):
    """The tokenizer, to which a text that spells "[PAD]" is text; no file keeps the setting."""
    tokenizer.encode_special_tokens = True
    return tokenizer


def tokenizers_library():
    """The module, or UserError with what to install."""
    # Set explicitly, the library's own default stays but its warning at every fork goes.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        import tokenizers
    except ImportError as error:
        raise missing("texts need tokenizers", "tokenizers") from error
    return tokenizers
