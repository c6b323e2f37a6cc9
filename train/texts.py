"""What reads the texts of a task: a tokenizer of its own, or the encoder of --init-from."""

import dataclasses
from pathlib import Path

from minisum.checkpoint import TOKENIZER
from minisum.errors import UserError
from minisum.text.tokenizer import load_tokenizer, train_tokenizer


def texts_of(config, folder, resume, texts):
    """(config, tokenizer, Pretrained or None), the config with the encoder's sizes in it.

    On resuming the tokenizer is the RunFolder's, and so are the weights, but not the encoder's
    sizes: its folder must still be there.
    """
    if config.init_from is None:
        return config, tokenizer_of(config, folder, resume, texts), None
    from minisum.models.pretrained import Pretrained

    pretrained, path = Pretrained(config.init_from), Path(config.init_from) / TOKENIZER
    if resume and folder.tokenizer.exists():
        path = folder.tokenizer
    words, sizes = load_tokenizer(path), pretrained.sizes
    if words.get_vocab_size() > sizes["vocab"]:
        found = f"{words.get_vocab_size()} tokens, and the encoder knows {sizes['vocab']}"
        raise UserError(f"{path} has {found}")
    if not 3 <= config.max_len <= sizes["max_len"]:  # [CLS], a word and [SEP]
        most = f"from 3 to {sizes['max_len']} tokens"
        raise UserError(f"--max-len {config.max_len}: the encoder reads {most}")
    decided = {name: sizes[name] for name in config.DECIDED if name in sizes}
    return dataclasses.replace(config, **decided), words, pretrained


def tokenizer_of(config, folder, resume, texts, read=load_tokenizer, make=train_tokenizer):
    """The tokenizer of a run: read from its folder on resuming, else made of the training texts."""
    if resume and folder.tokenizer.exists():
        return read(folder.tokenizer)
    return make(texts, config.tokenizer, config.vocab_size)
