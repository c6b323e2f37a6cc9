"""Writing text: draws from scores, a stream of bytes, and a model that goes on from a prompt."""

from itertools import islice

import numpy as np
import pytest
from conftest import XP
from hypothesis import given
from hypothesis import strategies as st

from minisum import backend
from minisum.errors import UserError
from minisum.models.language_model import LanguageModel
from minisum.params import Params
from minisum.runs.generation import draw, generate
from minisum.strategies import seeds

V, MAX_LEN = 13, 8


@pytest.fixture(scope="module")
def writer():
    model = LanguageModel(V, 16, "summation,attention", MAX_LEN, heads=2)
    params = Params.from_arrays(model.init(np.random.default_rng(0)), xp=XP)
    return model, params


def written(writer, prompt, count, seed=0, **options):
    return list(islice(generate(*writer, prompt, np.random.default_rng(seed), **options), count))


def test_the_seed_decides_what_is_written(writer):
    first = written(writer, [1, 2], 30, seed=4)
    assert first == written(writer, [1, 2], 30, seed=4)
    assert first != written(writer, [1, 2], 30, seed=5)
    assert first[:10] == written(writer, [1, 2], 10, seed=4)


def test_greedy_writing_is_what_whole_passes_say(writer):
    """Each token, also past the trained length, is the likeliest after all before it."""
    model, params = writer
    tokens = written(writer, [3], 2 * MAX_LEN, temperature=0)
    text = [3, *tokens]
    scores, _ = model.step(params, XP.asarray([text]), every=True)
    assert tokens == backend.to_numpy(scores).argmax(axis=-1)[0, :-1].tolist()


def test_forgetting_starts_anew(writer):
    tokens = written(writer, [1], 200, seed=3, forget_at=7)
    after = tokens.index(7)
    greedy = written(writer, [7], 5, temperature=0)
    model, params = writer
    again = written(writer, [1], after + 1, seed=3, forget_at=7)
    assert again == tokens[: after + 1]
    state, scores = None, []
    for token in [7, *greedy[:4]]:
        logits, state = model.step(params, XP.asarray([[token]]), state)
        scores.append(int(logits.argmax()))
    assert scores == greedy


def test_an_empty_prompt_is_refused(writer):
    with pytest.raises(UserError, match="at least one token"):
        written(writer, [], 1)


@given(seed=seeds(), top_k=st.integers(1, V + 2), temperature=st.floats(0.1, 3))
def test_draws_are_among_the_highest(seed, top_k, temperature):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 3, V)
    highest = set(np.argsort(scores)[-top_k:].tolist())
    for _ in range(20):
        assert draw(scores, rng, temperature, top_k) in highest
    assert draw(scores, rng, 0, top_k) == scores.argmax()
    assert draw(scores, rng, temperature, 1) == scores.argmax()


def test_draws_follow_the_softmax():
    rng = np.random.default_rng(0)
    scores = np.array([0.0, 1.0, 2.0, -50.0], np.float32)
    for temperature in (0.5, 1.0, 2.0):
        p = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
        draws = np.bincount([draw(scores, rng, temperature) for _ in range(20_000)], minlength=4)
        assert (np.abs(draws - 20_000 * p) <= 5 * np.sqrt(20_000 * p * (1 - p)) + 1e-9).all()


tokenizers = pytest.importorskip("tokenizers")

from minisum.text import byte_tokens  # noqa: E402
from minisum.text.tokenizer import encode, save_tokenizer  # noqa: E402

TEXTS = ["the cat sat on the mat", "naïve café 日本語 😀 end", "\x00\x01\ttabs\n\nlines"]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokens.make(TEXTS, "bpe", 300)


def test_vocabulary_has_a_separator_and_the_asked_for_size(tokenizer, tmp_path):
    assert tokenizer.get_vocab_size() <= 300
    assert byte_tokens.separator_id(tokenizer) == tokenizer.get_vocab_size() - 1
    save_tokenizer(tokenizer, tmp_path / "t.json")
    loaded = byte_tokens.load(tmp_path / "t.json")
    spelling = "a [EOS] and [PAD] in a text"
    for each in (tokenizer, loaded):
        ids = encode(each, [spelling])[0]
        assert byte_tokens.separator_id(each) not in ids and 0 not in ids


@given(text=st.text(max_size=60))
def test_bytes_of_tokens_spell_the_text(tokenizer, text):
    ids = encode(tokenizer, [text])[0]
    spelled = byte_tokens.bytes_of_tokens(tokenizer)
    assert b"".join(spelled[i] for i in ids) == text.encode()
    assert byte_tokens.lengths_of_tokens(tokenizer)[ids].sum() == len(text.encode())


@given(text=st.text(max_size=60))
def test_a_stream_shows_whole_characters_only(tokenizer, text):
    stream = byte_tokens.TextStream(tokenizer)
    pieces = [stream.read(int(token)) for token in encode(tokenizer, [text])[0]]
    assert "".join(pieces) == text
    # A character of several bytes never comes out as a replacement of a part of it.
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


def test_a_stream_holds_back_a_part_of_a_character(tokenizer):
    spelled = byte_tokens.bytes_of_tokens(tokenizer)
    lone = {byte: spelled.index(bytes([byte])) for byte in "😀é".encode()}
    stream = byte_tokens.TextStream(tokenizer)
    shown = [stream.read(lone[byte]) for byte in "😀".encode()]
    assert shown == ["", "", "", "😀"]
    first, second = "é".encode()
    assert stream.read(lone[first]) == ""
    assert stream.read(byte_tokens.separator_id(tokenizer)) == "\n\n"
    assert stream.read(lone[second]) == "\ufffd"


def test_damaged_and_foreign_tokenizers_are_refused(tmp_path):
    path = tmp_path / "t.json"
    with pytest.raises(UserError, match="cannot be read"):
        byte_tokens.load(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="damaged"):
        byte_tokens.load(path)
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(str(path))
    with pytest.raises(UserError, match="does not work on bytes"):
        byte_tokens.load(path)


@given(
    seed=st.integers(0, 2**32 - 1),
    top_p=st.floats(0.01, 1),
    temperature=st.floats(0.3, 3),
)
def test_top_p_draws_among_the_fewest_likeliest(seed, top_p, temperature):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=12) * 2
    chances = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
    order = np.argsort(-scores)
    count = int(np.searchsorted(np.cumsum(chances[order]), top_p - 1e-12)) + 1
    drawn = {draw(scores, rng, temperature, top_p=top_p) for _ in range(60)}
    assert drawn <= set(order[:count].tolist())
    assert draw(scores, rng, temperature, top_p=1e-9) == order[0]


def test_top_p_keeps_the_proportions_of_what_is_left():
    scores, rng = np.log([0.5, 0.3, 0.15, 0.05]), np.random.default_rng(0)
    counts = np.bincount([draw(scores, rng, top_p=0.79) for _ in range(4000)], minlength=4)
    assert counts[2:].sum() == 0  # 0.5 + 0.3 reaches 0.79
    assert abs(counts[0] / 4000 - 0.5 / 0.8) < 0.03


def test_characters_are_tokens():
    texts = ["naïve 日本\n", "Straße 日本 x\n"] * 9
    tokenizer = byte_tokens.make(texts, "character", 400)
    ids = encode(tokenizer, ["naïve 日本\n", "日ж"])
    spelled = byte_tokens.bytes_of_tokens(tokenizer)
    assert [spelled[i].decode() for i in ids[0]] == list("naïve 日本\n")
    assert [spelled[i] for i in ids[1]] == ["日".encode(), b"\xd0", b"\xb6"]  # unseen: its bytes
    stream = byte_tokens.TextStream(tokenizer)
    assert "".join(stream.read(i) for i in ids[1]) == "日ж"
