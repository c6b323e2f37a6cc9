"""The texts of the experiment, as the encoder reads them, and models around any mixer."""

import hashlib
from pathlib import Path

import numpy as np

from data.sets.classification import load_classification
from minisum.checkpoint import TOKENIZER
from minisum.models.bert import BertClassifier
from minisum.models.pretrained import WEIGHTS, Pretrained
from minisum.text import batches
from minisum.text.tokenizer import TextReader, load_tokenizer
from train.transfer.lessons import LESSONS
from train.transfer.matching import match

EVALUATED = 64  # rows at a time: a forward pass keeps what its backward pass would need
# What a model begins with: every array that has a place, perhaps after each mixer learned a lesson
# from attention; the word embeddings; or nothing.
STARTS = {"all": None, **dict.fromkeys(LESSONS), "words": ("embedding",), "random": ()}


class Corpus:
    """splits: name -> (encoded texts, labels); `class_texts`: the names of the classes, encoded."""

    def __init__(self, config):
        self.config, self.pretrained = config, Pretrained(config.init_from)
        sizes = config.pick("dataset", "limit_train", "limit_test", "validation")
        data = load_classification(**sizes)
        words = load_tokenizer(Path(config.init_from) / TOKENIZER)
        self.reader = TextReader(words, config.max_len)
        self.splits = {
            name: (self.reader.encode(part.texts), part.labels)
            for name, part in data.splits.items()
        }
        self.class_names = data.class_names
        self.class_texts = self.reader.encode([name.replace(".", " ") for name in self.class_names])
        weights = (Path(config.init_from) / WEIGHTS).read_bytes()
        self.sha256 = {
            "data_sha256": data.sha256, "weights_sha256": hashlib.sha256(weights).hexdigest()
        }  # fmt: skip

    def model(self, mixer):
        sizes, config = self.pretrained.sizes, self.config
        shape = (sizes["vocab"], sizes["width"], len(self.class_names), config.max_len)
        return BertClassifier(mixer, *shape, self.pretrained.encoder, dropout=config.dropout)

    def first_values(self, model, mixer, start, seed):
        drawn = model.init(np.random.default_rng([seed, 0]))
        filled = self.pretrained.fill(drawn, mixer, STARTS[start])
        lesson = LESSONS.get(start)
        return match(self, mixer, filled, seed, lesson) if lesson else filled

    def can_begin(self, mixer, start):
        """Attention's outputs are no lesson to itself, and its weights one to maps that learn."""
        if start != "matched_weights":
            return (mixer, start) != ("attention", "matched")
        block = self.model(mixer).encoder.blocks[0]
        return "q_map" in block.mixer.init(np.random.default_rng(0))

    def batch(self, split, rows):
        texts, labels = self.splits[split]
        return self.reader.batch(texts.take(rows)) | {"targets": labels[rows]}

    def train_batch(self, seed, step):
        """The batch of a step, counted from 1; every epoch has an order of its own."""
        size, rows = self.config.batch_size, len(self.splits["train"][1])
        epoch, place = divmod((step - 1) * size, rows // size * size)
        return self.batch("train", batches.epoch_order(rows, seed, epoch)[place : place + size])

    def in_batches(self, split, limit=None):
        """Batches of a split, texts of like length together."""
        order = np.argsort(self.splits[split][0].lengths[:limit], kind="stable")
        return (self.batch(split, rows) for rows in batches.batches(order, EVALUATED))
