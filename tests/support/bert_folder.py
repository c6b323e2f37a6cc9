"""A folder with a tiny encoder of BERT's kind, drawn at random, as --init-from reads it."""

import json

import numpy as np
import tokenizers
from safetensors.numpy import save_file

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[UNK]", "[SEP]", "[PAD]", "[CLS]"]  # not in the order that BERT's own files have
VOCAB = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
CONFIG = {
    "model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12, "vocab_size": len(VOCAB),
    "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": 20, "type_vocab_size": 2,
    "pad_token_id": SPECIAL.index("[PAD]"),
}  # fmt: skip


def shapes(config):
    """name -> shape of the arrays in the file, as in transformers' BertModel."""
    d, e = config["hidden_size"], config["intermediate_size"]
    tables = {"word": "vocab_size", "position": "max_position_embeddings"}
    tables |= {"token_type": "type_vocab_size"}
    found = {f"embeddings.{t}_embeddings.weight": (config[n], d) for t, n in tables.items()}
    layers = {"embeddings.LayerNorm": (d,), "pooler.dense": (d, d)}
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        inner = [*(f"attention.self.{name}" for name in ("query", "key", "value"))]
        layers |= {f"{layer}.{name}": (d, d) for name in [*inner, "attention.output.dense"]}
        layers |= {f"{layer}.{name}.LayerNorm": (d,) for name in ("attention.output", "output")}
        layers |= {f"{layer}.intermediate.dense": (e, d), f"{layer}.output.dense": (d, e)}
    for name, shape in layers.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return found


def write(folder, seed=0, config=None, arrays=None, tokenizer=None):
    """The folder, with changes: of config.json, of arrays by name (None: left out)."""
    config = CONFIG | (config or {})
    rng = np.random.default_rng(seed)
    drawn = {
        name: (rng.normal(name.endswith("Norm.weight"), 0.4, shape)).astype(np.float32)
        for name, shape in shapes(config).items()
    } | (arrays or {})
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: array for name, array in drawn.items() if array is not None}
    save_file(kept, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tokenizer or word_pieces()).save(str(folder / "tokenizer.json"))
    return folder


def word_pieces():
    """BERT's tokenizer of single letters; it cuts and pads texts, which a reader must not."""
    vocab = {token: number for number, token in enumerate(VOCAB)}
    found = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token="[UNK]"))
    found.normalizer = tokenizers.normalizers.BertNormalizer()
    found.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    found.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    found.add_special_tokens(SPECIAL)
    found.enable_truncation(6)
    found.enable_padding(length=6)
    return found
