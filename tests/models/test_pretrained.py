"""An encoder from a folder: the same outputs and gradients as PyTorch's, and honest refusals."""

import json

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

import bert_folder

from minisum.errors import UserError
from minisum.gradcheck import gradcheck
from minisum.models.bert import BertClassifier
from minisum.models.pretrained import Pretrained
from minisum.ops import embed
from minisum.params import Params, flatten
from minisum.text.tokenizer import TextReader, load_tokenizer

TEXTS = ["a bag of words", "sum", "", "naïve: [SEP] is text", "one two three four five six"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bert_folder.write(tmp_path_factory.mktemp("bert"))


def begin(folder, mixer="attention", dtype="float64", max_len=20, **options):
    """(Pretrained, the classifier that it begins, its parameters)."""
    pretrained = Pretrained(folder)
    sizes = (pretrained.sizes["vocab"], pretrained.sizes["width"], 3, max_len)
    model = BertClassifier(mixer, *sizes, pretrained.encoder, **options)
    filled = pretrained.fill(model.init(np.random.default_rng(1)), mixer)
    return pretrained, model, Params.from_arrays(filled, dtype=dtype)


def read(folder, texts=TEXTS, max_len=20):
    reader = TextReader(load_tokenizer(folder / "tokenizer.json"), max_len)
    return reader.batch(reader.encode(texts))


def twin(folder, batch, dtype):
    """(token vectors, the file's arrays by their names) of the encoder, written in PyTorch."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    F = torch.nn.functional
    p = {k: a.to(getattr(torch, dtype)) for k, a in load_file(folder / "model.safetensors").items()}
    p = {name: a.requires_grad_() for name, a in p.items()}
    ids, mask = (torch.tensor(batch[name]) for name in ("ids", "mask"))

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-12)

    def linear(x, name):
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    table = "embeddings.{}_embeddings.weight"
    x = p[table.format("word")][ids] + p[table.format("position")][: ids.shape[1]]
    x = norm(x + p[table.format("token_type")][0], "embeddings.LayerNorm")
    for i in range(2):
        layer = f"encoder.layer.{i}"
        heads = (
            linear(x, f"{layer}.attention.self.{name}").unflatten(-1, (2, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        o = F.scaled_dot_product_attention(*heads, attn_mask=mask[:, None, None])
        o = linear(o.transpose(1, 2).flatten(2), f"{layer}.attention.output.dense")
        x = norm(x + o, f"{layer}.attention.output.LayerNorm")
        up = F.gelu(linear(x, f"{layer}.intermediate.dense"))
        x = norm(x + linear(up, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x, p


def transformers_twin(folder, batch, dtype):
    """The same by the library that defines the format."""
    torch, library = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = library.BertModel.from_pretrained(folder, attn_implementation="eager")
    model = model.to(getattr(torch, dtype)).eval()
    given = {"input_ids": torch.tensor(batch["ids"]).long()}
    given["attention_mask"] = torch.tensor(batch["mask"]).long()
    return model(**given).last_hidden_state, dict(model.named_parameters())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("other", [twin, transformers_twin])
def test_token_vectors_and_every_gradient_are_those_of_pytorch(folder, other, dtype, tolerance):
    batch = read(folder)
    pretrained, model, params = begin(folder, dtype=dtype)
    theirs, named = other(folder, batch, dtype)
    x, back_embed = embed(batch["ids"], params["embedding"])
    out, back = model.encoder(params, x, batch["mask"])
    real = batch["mask"]
    wanted = theirs.detach().numpy()
    assert abs(out[real] - wanted[real]).max() < tolerance * abs(wanted).max()

    dout = np.random.default_rng(2).normal(size=out.shape).astype(dtype) * real[:, :, None]
    theirs.backward(theirs.new_tensor(dout))
    grads = params.zeros_like()
    dx = back(dout, grads)
    back_embed(dx)[1].add_to(grads["embedding"])
    scale = max(abs(grads.flat[ours]).max() for ours in pretrained.arrays)
    assert scale > 1
    for ours, name in pretrained.theirs.items():
        gradient = named[name].grad.numpy()
        assert abs(grads.flat[ours] - gradient).max() < tolerance * scale, name


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_gradient_of_the_whole_encoder_at_its_weights(folder, pooling):
    _, model, params = begin(folder, pooling=pooling)
    batch = read(folder) | {"targets": np.arange(len(TEXTS)) % 3}

    def loss(vector):
        at = params.zeros_like()
        at.vector[...] = vector
        value, back = model.loss(at, batch, len(TEXTS))

        def backward(dloss):
            grads = params.zeros_like()
            back(grads)
            return grads.vector * dloss

        return value, backward

    verdict = gradcheck(loss, params.vector, entries=24, seed=1)
    assert verdict, verdict


def test_the_first_token_is_read_in_its_place(folder):
    _, model, params = begin(folder, pooling="first")
    batch = read(folder)
    out, _ = model.encoder(params, embed(batch["ids"], params["embedding"])[0], batch["mask"])
    features, _ = model.features(params, batch["ids"], batch["mask"])
    np.testing.assert_array_equal(features, out[:, 0])


def test_texts_are_read_as_the_tokenizer_reads_them(folder):
    """Between the file's own [CLS] and [SEP], which count; neither cut nor padded by the file."""
    cls, sep = (bert_folder.VOCAB.index(token) for token in ("[CLS]", "[SEP]"))
    whole = bert_folder.word_pieces()
    whole.no_truncation()
    whole.no_padding()
    for text, ids, mask in zip(TEXTS, *read(folder, max_len=9).values(), strict=True):
        wanted = whole.encode(text, add_special_tokens=False).ids
        if "[SEP]" not in text:
            assert ids[mask].tolist() == [cls, *wanted[:7], sep]
    spelled = read(folder, ["[SEP]"])["ids"][0].tolist()
    assert spelled[0] == cls and spelled[-1] == sep and sep not in spelled[1:-1]


@pytest.mark.parametrize(
    ("mixer", "kept", "left_out", "drawn"),
    [
        ("attention", 37, "pooler.dense.bias, pooler.dense.weight", "head.W, head.b"),
        ("first_order", 37, "pooler.dense.bias, pooler.dense.weight", "head.W, head.b"),
        ("simpletron:output=True:scale=learned", 37, "pooler", "blocks.*.mixer.scale, head.W"),
        ("simpletron", 33, "encoder.layer.*.attention.output.dense.bias", "head.W, head.b"),
        ("linear_attention:feature_map=hedgehog", 37, "pooler", "blocks.*.mixer.k_map.W"),
        ("tssa", 29, "encoder.layer.*.attention.self.key.bias", "blocks.*.mixer.temperature"),
        ("summation", 23, "encoder.layer.*.attention.self.value.bias", "head.W, head.b"),
    ],
)
def test_another_mixer_keeps_what_has_a_place(folder, mixer, kept, left_out, drawn):
    pretrained, model, params = begin(folder, mixer)
    account = pretrained.account["init_from"]
    assert account.startswith(f"{kept} of the 39 arrays in {folder}; left out: ")
    assert left_out in account.partition("left out: ")[2].partition(";")[0]
    assert drawn in account.partition("drawn: ")[2]
    for name in ("tssa", "summation"):
        if mixer == name:
            values = pretrained.arrays["blocks.1.mixer.v.W"]
            np.testing.assert_array_equal(params["blocks"]["1"]["mixer"]["project"]["W"], values)
    np.testing.assert_array_equal(
        params["blocks"]["0"]["up"]["W"], pretrained.arrays["blocks.0.up.W"]
    )
    assert np.isfinite(model.predict(params, read(folder))).all()


def test_every_array_of_the_file_has_a_place_or_a_name(folder):
    pretrained = Pretrained(folder)
    names = {*pretrained.theirs.values(), *pretrained.others}
    assert names == bert_folder.shapes(bert_folder.CONFIG).keys()
    assert pretrained.others == ["pooler.dense.bias", "pooler.dense.weight"]


def test_a_model_for_shorter_texts_has_the_first_positions(folder):
    pretrained, _, params = begin(folder, max_len=7)
    np.testing.assert_array_equal(params["positions"], pretrained.arrays["positions"][:7])


def test_words_alone(folder):
    pretrained = Pretrained(folder)
    model = begin(folder)[1]
    drawn = model.init(np.random.default_rng(3))
    filled = pretrained.fill(drawn, only=("embedding",))
    same = {name for name, array in flatten(drawn).items() if filled[name] is array}
    assert filled.keys() - same == {"embedding"}
    assert pretrained.account["init_from"].startswith("1 of the 39 arrays")


def test_names_of_other_years(folder, tmp_path):
    """gamma and beta, and the prefix of a model with a head of its own."""
    arrays, renamed = Pretrained(folder), {}
    for name, shape in bert_folder.shapes(bert_folder.CONFIG).items():
        older = name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")
        renamed |= {name: None, f"bert.{older}": np.zeros(shape, np.float32)}
    bert_folder.write(tmp_path, arrays=renamed | {"cls.predictions.bias": np.zeros(2, np.float32)})
    older = Pretrained(tmp_path)
    assert older.arrays.keys() == arrays.arrays.keys()
    assert "cls.predictions.bias" in older.others


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config": {"model_type": "roberta"}}, "config.json: model_type roberta is not known"),
        ({"config": {"hidden_act": "relu"}}, "hidden_act relu is not known, only gelu"),
        ({"config": {"num_hidden_layers": None}}, "config.json has no num_hidden_layers"),
        ({"config": {"layer_norm_eps": "small"}}, "layer_norm_eps small is not known"),
        ({"config": {"num_attention_heads": 3}}, "3 heads do not divide the width 8"),
        (
            {"arrays": {"encoder.layer.1.output.dense.bias": None}},
            "model.safetensors holds no array for blocks.1.down.b",
        ),
        (
            {"arrays": {"embeddings.LayerNorm.bias": np.zeros(9, np.float32)}},
            "embeddings.LayerNorm.bias of the shape (9,), and by config.json it is (8,)",
        ),
        (
            {"arrays": {"encoder.layer.0.attention.self.key.weight": np.zeros((8, 4), "f")}},
            "encoder.layer.0.attention.self.key.weight of the shape (8, 4)",
        ),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_in_a_sentence(tmp_path, changes, sentence):
    changes = {"config": {}, "arrays": {}} | changes
    if None in changes["config"].values():
        folder = bert_folder.write(tmp_path)
        sizes = '"vocab_size": 4, "hidden_size": 8, "max_position_embeddings": 4'
        (folder / "config.json").write_text(f'{{"model_type": "bert", {sizes}}}')
    else:
        arrays = changes["arrays"]
        folder = bert_folder.write(tmp_path, config=changes["config"], arrays=arrays)
    with pytest.raises(UserError) as refused:
        begin(folder)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, b"", b"{]", b"[1]", b"\xff" * 99])
def test_a_file_that_is_missing_or_damaged_is_named(folder, tmp_path, name, content):
    bert_folder.write(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        Pretrained(tmp_path)
        load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    "size", ["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"]
)
def test_a_size_that_the_arrays_do_not_have_is_not_believed(folder, tmp_path, size):
    """Nothing of that size is made first: it would not fit."""
    bert_folder.write(tmp_path)
    config = bert_folder.CONFIG | {size: 10**15}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="model.safetensors holds"):
        Pretrained(tmp_path)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    words = bert_folder.word_pieces()
    words.normalizer = None
    words.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="no BertNormalizer in it"):
        load_tokenizer(tmp_path / "tokenizer.json")
    words = bert_folder.word_pieces()
    words.post_processor = bert_folder.tokenizers.processors.TemplateProcessing("$A", None, [])
    words.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="puts 0 tokens around a text"):
        load_tokenizer(tmp_path / "tokenizer.json")
