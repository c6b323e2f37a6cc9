"""Word pieces of an encoder of BERT's kind, by the tokenizer.json that came with its weights."""

import json

from minisum.errors import UserError

# The parts of such a tokenizer, each with the one type that it may have.
PARTS = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}


def checked(tokenizer, path):
    """The tokenizer in the file `path`, without its own cutting and padding of texts.

    UserError for a tokenizer of another kind.
    """
    content = json.loads(tokenizer.to_str())
    for part, kind in PARTS.items():
        if (content[part] or {}).get("type") != kind:
            raise UserError(f"{path} does not cut texts into BERT's word pieces: no {kind} in it")
    # The library would list every number that a vocabulary leaves out.
    if sorted(tokenizer.get_vocab().values()) != list(range(tokenizer.get_vocab_size())):
        raise UserError(f"{path} does not number its tokens from 0")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if (count := len(tokenizer.encode("").ids)) != 2:
        raise UserError(f"{path} puts {count} tokens around a text, not BERT's [CLS] and [SEP]")
    return tokenizer
