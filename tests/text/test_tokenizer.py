"""The vocabulary repeats, special words in a text stay words, damaged files are refused."""

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from readable import text_of

from minisum.errors import UserError

pytest.importorskip("tokenizers")
from minisum.text.tokenizer import (  # noqa: E402
    UNKNOWN_ID,
    WORD_BREAKS,
    encode,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)

TEXTS = ["The cat sat; the CAT purred.", "A dog\tsat\non_the-mat!", "cat [x] \\ ^ ~ é Éa", ""]
quick = settings(deadline=None, max_examples=60)


def words(text):
    """The Keras Tokenizer's text_to_word_sequence."""
    return [w for w in re.split("[" + re.escape(WORD_BREAKS) + "]", text.lower()) if w]


def test_word_vocabulary_is_the_most_frequent_words():
    tokenizer = train_tokenizer(TEXTS, "word", 6)
    counts = Counter(word for text in TEXTS for word in words(text))
    expected = sorted(counts, key=lambda word: (-counts[word], word))[:4]
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary, key=vocabulary.get) == ["[PAD]", "[UNK]", *expected]


@quick
@given(st.text(st.sampled_from(WORD_BREAKS + "abcdEF7é\r\u00a0'"), max_size=40))
def test_words_are_cut_as_keras_cuts_them(text):
    tokenizer = train_tokenizer([text, "abc"], "word", 1000)
    names = {number: word for word, number in tokenizer.get_vocab().items()}
    (ids,) = encode(tokenizer, [text])
    assert [names[number] for number in ids] == words(text)


def test_encode():
    tokenizer = train_tokenizer(TEXTS, "word", 100)
    encoded = encode(tokenizer, ["the unheard cat", "", "unheard"])
    assert [ids.dtype for ids in encoded] == [np.int32] * 3
    assert encoded[0][1] == UNKNOWN_ID and encoded[1].shape == (0,)
    dropped = encode(tokenizer, ["the unheard cat", "", "unheard"], drop_unknown=True)
    assert [ids.tolist() for ids in dropped] == [encoded[0][[0, 2]].tolist(), [], []]
    assert text_of(tokenizer, encoded[0]) == "the [UNK] cat"


def test_encode_takes_its_texts_lazily_and_in_order():
    tokenizer = train_tokenizer([str(i) for i in range(3000)], "word", 4000)
    encoded = encode(tokenizer, (str(i) for i in range(3000)))
    assert [text_of(tokenizer, ids) for ids in encoded] == [str(i) for i in range(3000)]


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_text_cannot_spell_padding(kind, tmp_path):
    tokenizer = train_tokenizer([*TEXTS, "pad unk"], kind, 400)
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    for each in (tokenizer, load_tokenizer(tmp_path / "tokenizer.json")):
        (ids,) = encode(each, ["cat [PAD] [UNK] cat"])
        assert ids.min() > 1


@quick
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_bpe_is_lossless(text):
    tokenizer = _bpe()
    (ids,) = encode(tokenizer, [text])
    assert text_of(tokenizer, ids) == text
    assert (ids > 1).all()


def _bpe(cache=[]):  # noqa: B006
    if not cache:
        cache.append(train_tokenizer(TEXTS, "bpe", 300))
    return cache[0]


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_the_same_texts_give_the_same_vocabulary_in_every_process(kind):
    # Many ties on purpose, and a vocabulary that must choose among them.
    generator = random.Random(3)
    texts = ["".join(generator.choices("abcdefgh", k=5)) + " x" for _ in range(900)]
    program = (
        "import sys, json; from minisum.text.tokenizer import train_tokenizer as t;"
        f"print(t(json.load(sys.stdin), {kind!r}, 500).to_str())"
    )
    outputs = set()
    for seed, parallel in (("0", "true"), ("1", "false"), ("2", "true")):
        outputs.add(
            subprocess.run(
                [sys.executable, "-c", program],
                input=json.dumps(texts),
                env=os.environ | {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel},
                cwd=Path(__file__).parents[2],
                capture_output=True,
                check=True,
                text=True,
            ).stdout.strip()
        )
    assert outputs == {train_tokenizer(texts, kind, 500).to_str()}


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_save_and_load(tmp_path, kind):
    tokenizer = train_tokenizer(TEXTS, kind, 300)
    path = tmp_path / "tokenizer.json"
    path.write_text("older")
    save_tokenizer(tokenizer, path)
    assert list(tmp_path.iterdir()) == [path]
    again = load_tokenizer(path)
    for a, b in zip(encode(tokenizer, TEXTS), encode(again, TEXTS), strict=True):
        assert np.array_equal(a, b)


def test_damaged_files(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match="cannot be read"):
        load_tokenizer(path)
    save_tokenizer(train_tokenizer(TEXTS, "word", 100), path)
    good = path.read_text()
    damaged = ["", "{}", "null", good[: len(good) // 2], "é" * 9]
    for word in ("[PAD]", "sat"):
        tree = json.loads(good)
        tree["model"]["vocab"][word] = 90
        damaged.append(json.dumps(tree))
    for unknown in ("[UNI]", "sat", ""):
        tree = json.loads(good)
        tree["model"]["unk_token"] = unknown
        damaged.append(json.dumps(tree))
    for content in damaged:
        path.write_text(content, encoding="latin-1")
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            load_tokenizer(path)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_flipped_characters_load_or_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flipped") / "tokenizer.json"
    text = train_tokenizer(TEXTS, "word", 30).to_str()
    position = data.draw(st.integers(0, len(text) - 1))
    replacement = data.draw(st.sampled_from('{}[]":,x0-9\\'))
    path.write_text(text[:position] + replacement + text[position + 1 :], encoding="utf-8")
    try:
        tokenizer = load_tokenizer(path)
    except UserError as error:
        assert "tokenizer.json" in str(error)
    else:
        assert len(encode(tokenizer, ["a word that is not there"])) == 1


def test_refusals():
    for kind, size in (("word", 2), ("bpe", 257), ("word", -1)):
        with pytest.raises(UserError, match="too small"):
            train_tokenizer(TEXTS, kind, size)
    with pytest.raises(UserError, match="'letters': choose one of word, wordpunct, bpe"):
        train_tokenizer(TEXTS, "letters", 100)
    with pytest.raises(UserError, match="no word"):
        train_tokenizer(["...", ""], "word", 100)
    with pytest.raises(UserError, match="Unicode"):
        encode(train_tokenizer(TEXTS, "word", 100), ["a \ud800 b"])
    assert train_tokenizer(TEXTS, "word", 3).get_vocab_size() == 3
    assert train_tokenizer(TEXTS, "bpe", 258).get_vocab_size() == 258
