"""Continue a text with a trained language model: python -m train.causal --generate PROMPT --out RUN

The prompt is read in one pass, then tokens are drawn one at a time and shown as they are made.
"""

import argparse
import itertools
import sys

import numpy as np

from data.text import byte_tokens
from data.text.tokenizer import encode
from minisum import backend
from minisum.errors import UserError
from minisum.models.generation import generate
from train import causal
from train.command_line import refuse
from train.run.folder import RunFolder
from train.run.options import Parser, from_run, utf8
from train.run.predict import best_of, matched
from train.run.report import emit, silence


def main(arguments):
    """Run the command; return the exit status."""
    try:
        write(parser().parse_args(arguments))
    except UserError as error:
        return refuse(error)
    except KeyboardInterrupt:
        emit(sys.stdout, "")
        return 130
    except BrokenPipeError:
        silence(sys.stdout)
        return 141
    return 0


def parser():
    parser = Parser(
        prog="python -m train.causal --generate",
        description="Continue a text with a trained language model.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--generate", metavar="PROMPT", required=True, help="the text to continue, may be empty")
    add("--out", metavar="RUN", required=True, help="folder of the run whose model writes")
    add("--tokens", type=int, default=200, metavar="N", help="how many tokens to add")
    add("--temperature", type=float, default=0.8, metavar="X", help="0 takes the likeliest token")
    add("--top-k", type=int, metavar="K", help="draw among the K likeliest tokens only")
    add("--seed", type=int, default=0, metavar="N", help="the same seed writes the same text")
    add("--backend", default="numpy", choices=backend.NAMES, help="where arrays live")
    return parser


def write(chosen):
    """Print the prompt and what the model makes of it."""
    check(chosen)
    model, params, tokenizer, config = load_run(chosen.out, chosen.backend)
    text = utf8(chosen.generate)
    prompt = encode(tokenizer, [text])[0]
    separator = byte_tokens.separator_id(tokenizer)
    if not config.rows:  # packed, every document follows a separator
        prompt = np.append(separator, prompt)
    tokens = generate(
        model,
        params,
        prompt,
        np.random.default_rng(chosen.seed),
        chosen.temperature,
        chosen.top_k,
        forget_at=separator if config.reset else None,
    )
    if sys.stdout is None:
        raise UserError("--generate needs standard output, and it is closed")
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    show(text)
    stream = byte_tokens.TextStream(tokenizer)
    for token in itertools.islice(tokens, chosen.tokens):
        show(stream.read(token))
    show("\n")


def check(chosen):
    for holds, what in (
        (0 <= chosen.tokens < 2**63, f"--tokens {chosen.tokens}: from 0 to 2**63 - 1"),
        (0 <= chosen.temperature < np.inf, f"--temperature {chosen.temperature}: from 0 to finite"),
        (chosen.top_k is None or chosen.top_k >= 1, f"--top-k {chosen.top_k}: at least 1 token"),
        (chosen.seed >= 0, f"--seed {chosen.seed}: it must be at least 0"),
    ):
        if not holds:
            raise UserError(what)


def show(text):
    sys.stdout.write(text)
    sys.stdout.flush()


def load_run(path, backend_name="numpy"):
    """(model, params, tokenizer, config) of the best epoch of the run in folder `path`."""
    folder = RunFolder(path)
    config, _ = from_run(causal.CausalConfig, "causal", path, {})
    if config.mixer == "all":
        raise UserError(f"{path} compares several mixers: choose one of the folders in it")
    if not folder.best.exists():
        raise UserError(f"{path} has no trained model yet: its first epoch is not done")
    tokenizer = byte_tokens.load(folder.tokenizer)
    arrays, card = best_of(folder, "causal")
    if tokenizer.get_vocab_size() != card["vocab"]:
        raise UserError(f"{path} holds a tokenizer that its model was not trained with")
    model = causal.build_model(config, card)
    params = matched(model, arrays, backend.get(backend_name), folder)
    return model, params, tokenizer, config
