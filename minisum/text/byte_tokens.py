"""Byte-level tokens for language models: their tokenizer, their bytes, and text out of a stream.

Every token stands for some bytes, so any text can be read and written, and a loss in bits per byte
compares models across tokenizers.
"""

import codecs
import json

import numpy as np

from minisum.errors import UserError
from minisum.text.tokenizer import (
    read_tokenizer,
    ready,
    split_characters,
    tokenizers_library,
    train_tokenizer,
)

# Stands before every document, and so also after every one but the last.
SEPARATOR = "[EOS]"
SEPARATORS = (SEPARATOR, "<|endoftext|>", "<|end_of_text|>", "</s>", "<s>")
HUB = "hub:"


def make(texts, kind="bpe", vocab_size=8192):
    """A tokenizer with a separator token: trained on `texts`, or loaded if kind is "hub:NAME".

    kind: "bpe" or "character". A trained one has at most `vocab_size` tokens. Raises UserError if
    the hub cannot be reached, or has a tokenizer that does not work on bytes.
    """
    if kind.startswith(HUB):
        name = kind.removeprefix(HUB)
        try:
            tokenizer = tokenizers_library().Tokenizer.from_pretrained(name)
        except Exception as error:
            # HTTP, DNS, disk and parsing all fail in their own ways.
            reason = " ".join(str(error).split())
            raise UserError(
                f"the tokenizer {name} could not be loaded from the hub: {reason:.200}"
            ) from error
        return _checked(tokenizer, kind)
    tokenizer = train_tokenizer(texts, kind, vocab_size - 1)
    tokenizer.add_special_tokens([SEPARATOR])
    return tokenizer


def load(path):
    """The tokenizer in a file that `minisum.text.tokenizer.save_tokenizer` wrote."""
    tokenizer = read_tokenizer(path)
    # First of all: the library would list every number that a vocabulary leaves out.
    if sorted(tokenizer.get_vocab().values()) != list(range(tokenizer.get_vocab_size())):
        raise UserError(f"{path} does not number its tokens from 0")
    tokenizer = _checked(tokenizer, path)
    content = json.loads(tokenizer.to_str())
    library = tokenizers_library()
    characters = library.Tokenizer(library.models.BPE())
    characters.pre_tokenizer = split_characters(library)
    if content["pre_tokenizer"] == json.loads(characters.to_str())["pre_tokenizer"]:
        content["pre_tokenizer"] = None
    kinds = {(content[part] or {}).get("type") for part in ("normalizer", "pre_tokenizer")}
    if not kinds <= {None, "ByteLevel"} or content["model"]["type"] != "BPE":
        raise UserError(f"{path} does more than split a text into byte pairs")
    return tokenizer


def separator_id(tokenizer) -> int:
    """The number of the token between documents."""
    found = (tokenizer.token_to_id(name) for name in SEPARATORS)
    return next(number for number in found if number is not None)


def bytes_of_tokens(tokenizer) -> list[bytes]:
    """What each token stands for; b"" for special tokens."""
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    added = tokenizer.get_added_tokens_decoder().items()
    special = {number for number, token in added if token.special}
    spelled = [b""] * tokenizer.get_vocab_size()
    for token, number in tokenizer.get_vocab().items():
        if number not in special:
            spelled[number] = bytes(byte_of[c] for c in token if c in byte_of)
    return spelled


def lengths_of_tokens(tokenizer):
    """(V,) int64: bytes a token stands for, 0 for special tokens."""
    return np.array([len(spelled) for spelled in bytes_of_tokens(tokenizer)])


class TextStream:
    """Text from one token after another.

    A character may take several tokens: its bytes are held back until it is whole. Bytes that can
    be no part of a character come out as U+FFFD; the separator of documents as a blank line.
    """

    def __init__(self, tokenizer):
        self.spelled = bytes_of_tokens(tokenizer)
        self.separator = separator_id(tokenizer)
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self, token) -> str:
        """The text that `token` completes, perhaps empty."""
        if token == self.separator:
            self.decoder.reset()
            return "\n\n"
        return self.decoder.decode(self.spelled[token])


def byte_characters():
    """The visible character that byte-level tokenizers write for each byte (Radford et al. 2019):
    itself if it is visible, else the next free one from 256 on."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    free = iter(range(256, 512))
    return [chr(byte if byte in visible else next(free)) for byte in range(256)]


def _checked(tokenizer, source):
    decoder = json.loads(tokenizer.to_str())["decoder"]
    if decoder is None or decoder["type"] != "ByteLevel":
        raise UserError(f"{source} does not work on bytes, which a language model here needs")
    if not any(tokenizer.token_to_id(name) is not None for name in SEPARATORS):
        tokenizer.add_special_tokens([SEPARATOR])
    return ready(tokenizer)
