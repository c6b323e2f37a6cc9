"""Text by a trained language model: python -m train.causal --generate PROMPT --out RUN"""

import sys

import numpy as np

from minisum import backend
from minisum.errors import UserError, visible
from minisum.runs import load
from train.command_line import run_with_exit_status
from train.run.options import Parser, utf8
from train.run.report import emit

DRAWING = ("tokens", "temperature", "top_k", "top_p")


def parser():
    about = "Continue a text with a trained language model."
    parser = Parser.with_defaults("python -m train.causal --generate", about)
    add = parser.add_argument
    add("--generate", metavar="PROMPT", required=True, help="the text to continue, may be empty")
    add("--out", metavar="RUN", required=True, help="folder of the run whose model writes")
    add("--tokens", type=int, default=200, metavar="N", help="how many tokens to add")
    add("--temperature", type=float, default=0.8, metavar="X", help="0 takes the likeliest token")
    add("--top-k", type=int, metavar="K", help="draw among the K likeliest tokens only")
    add("--top-p", type=float, metavar="P",
        help="draw among the likeliest tokens that together have probability P only")  # fmt: skip
    add("--samples", type=int, default=1, metavar="N", help="how many continuations to write")
    add("--interactive", action="store_true", help="then read further prompts, one per line")
    add("--seed", type=int, default=0, metavar="N", help="seed of the draws")
    add("--backend", default="numpy", choices=backend.NAMES, help="CPU or, with cupy, GPU")
    return parser


def check(chosen):
    top_k, top_p = chosen.top_k, chosen.top_p
    for holds, what in (
        (0 <= chosen.tokens < 2**63, f"--tokens {chosen.tokens}: from 0 to 2**63 - 1"),
        (0 <= chosen.temperature < np.inf, f"--temperature {chosen.temperature}: from 0 to finite"),
        (top_k is None or top_k >= 1, f"--top-k {top_k}: at least 1 token"),
        (top_p is None or 0 < top_p <= 1, f"--top-p {top_p}: above 0, at most 1"),
        (chosen.samples >= 1, f"--samples {chosen.samples}: at least 1"),
        (chosen.seed >= 0, f"--seed {chosen.seed}: it must be at least 0"),
    ):
        if not holds:
            raise UserError(what)


def main(arguments):
    """Write text as `arguments` say; return the exit status."""
    asks_for_help = {"-h", "--help"} & set(arguments)  # with a prompt or without
    with run_with_exit_status() as outcome:
        chosen = parser().parse_args(["--help"] if asks_for_help else arguments)
        check(chosen)
        outcome.status = write(chosen)
    return outcome.status


def write(chosen):
    """Print each prompt and its continuations; return the exit status.

    A prompt is read in one pass; then tokens are drawn one at a time and shown at once.
    """
    run = load(chosen.out, chosen.backend, task="causal")
    if sys.stdout is None:
        raise UserError("--generate needs standard output, and it is closed")
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    try:
        for number, prompt in enumerate(prompts(chosen)):
            for sample in range(chosen.samples):
                if sample:
                    show("\n----\n")
                seed = chosen.seed + number * chosen.samples + sample
                drawing = {name: getattr(chosen, name) for name in DRAWING}
                pieces = run.stream(prompt, seed=seed, **drawing)
                show(prompt)
                for piece in pieces:
                    show(piece)
                show("\n")
    except KeyboardInterrupt:
        show("\n")
        return 130
    return 0


def prompts(chosen):
    """The prompt of the command line, unless it is empty and others follow; then those."""
    if chosen.generate or not chosen.interactive:
        yield utf8(chosen.generate)
    while chosen.interactive and sys.stdin is not None:
        if sys.stdin.isatty():
            emit(sys.stderr, "note: type a prompt and press Enter; Ctrl-D ends")
        line = sys.stdin.buffer.readline()
        if not line:
            return
        yield line.decode("utf-8", "replace").rstrip("\r\n")


def show(text):
    sys.stdout.write(visible(text))
    sys.stdout.flush()
