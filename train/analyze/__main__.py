"""Look inside trained runs: python -m train.analyze RUN [RUN ...] --out DIR

For a classifier that sums its tokens: what every word contributes to the decision, exactly
(terminal, words.html, words.json), and where in a text positions amplify or mute (positions.png).
Of language models, side by side: how token vectors move from layer to layer (layers.png,
layers.json), as published: their principal plane, the likeness of consecutive layers, and how many
directions each layer uses; of layers of token statistics attention also which tokens belong to
which head, and how far each layer lowers the bound of the coding rate (tssa.png).
"""

import dataclasses
import sys
import textwrap
from pathlib import Path

import numpy as np

import minisum
from minisum import files
from minisum.errors import UserError
from minisum.models.classifier import POSITION_OFFSET
from train import causal, classifier
from train.analyze import geometry, heads, layer_figures
from train.analyze.contributions import account_of, in_html, in_terminal
from train.command_line import resolve_defaults, run_with_exit_status
from train.run.folder import RunFolder
from train.run.options import Parser, from_run, stored_config
from train.run.report import emit
from train.run.tables import terminal_width


def parser():
    about = "Look inside trained runs: words' contributions, or the geometry of layers."
    parser = Parser.with_defaults("python -m train.analyze", about)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="folder of a run, classifiers or language models")
    add("--out", metavar="DIR", required=True, help="folder for pictures and tables")
    add("--text", metavar="TEXT", action="append", help="a text to explain (default: test texts)")
    add("--texts", type=int, default=8, metavar="N", help="how many test texts to explain")
    add("--tokens", type=int, default=20_000, metavar="N", help="how many token vectors to follow")
    return parser


def analyze(chosen):
    if chosen.texts < 1 or chosen.tokens < 2:
        raise UserError("--texts must be at least 1 and --tokens at least 2")
    tasks = {task_of(run) for run in chosen.runs}
    if len(tasks) > 1:
        raise UserError("the runs are of different tasks: analyze classifiers or language models")
    out = Path(chosen.out)
    if tasks == {"causal"}:
        follow_layers(chosen, out)
        return
    for run in chosen.runs:
        explain_words(run, chosen, out / Path(run).name if len(chosen.runs) > 1 else out)


def task_of(run):
    task = stored_config(run).get("task")
    if task not in ("classifier", "causal"):
        raise UserError(f"{run} is a {task} run; only classifiers and language models are analyzed")
    return task


def explain_words(run, chosen, out):
    """Contributions of the words of some texts, in three forms, and the size of the positions."""
    trained = minisum.load(run, task="classifier")
    texts, labels = chosen.text, None
    if texts is None:
        config, _ = from_run(classifier.ClassifierConfig, "classifier", run, {})
        data = classifier.load_data(dataclasses.replace(config, limit_test=chosen.texts))
        texts, labels = data.splits["test"].texts, data.splits["test"].labels
    accounts = []
    for i, text in enumerate(texts):
        account = account_of(trained.explain(text))
        if labels is not None:
            account["true"] = trained.classes[labels[i]]
        accounts.append(account)
        emit(sys.stdout, in_terminal(account, sys.stdout.isatty()))
    title = f"{trained.spec['model']['mixer']}: {run}"
    files.make_folder(out)
    files.write_text(out / "words.html", in_html(accounts, title))
    files.write_json(out / "words.json", accounts)
    if "positions" in trained.params:
        factors = trained.params["positions"] + POSITION_OFFSET
        layer_figures.position_factors(out / "positions.png", factors)
    emit(sys.stdout, f"in {out}")


def follow_layers(chosen, out):
    """The published figure and its numbers, for language models on their own validation text."""
    planes, measured = {}, {}
    for run in chosen.runs:
        config, _ = from_run(causal.CausalConfig, "causal", run, {})
        trained = minisum.load(run, task="causal")
        batches = validation_batches(run, config, chosen.tokens)
        layers = token_vectors(trained, batches, chosen.tokens)
        name = config.layers_pattern or config.mixer
        if name in measured:
            name += f" ({Path(run).name})"
        planes[name] = geometry.principal_plane(layers)
        measured[name] = {
            "cosines": geometry.consecutive_cosines(layers),
            "participation": geometry.participation_ratios(layers),
            "tokens": len(layers[0]),
        }
        texts = (batch["ids"][batch["targets"] >= 0][None] for batch in batches)
        coded = heads.codings(trained.model, trained.params, trained.tokenizer, texts)
        emit(sys.stdout, f"{name}: {len(layers[0]):,} tokens")
        for key in ("cosines", "participation"):
            values = " ".join(f"{v:7.3f}" for v in measured[name][key])
            gap = {"initial_indent": f"  {key:<14}", "subsequent_indent": " " * 16}
            emit(sys.stdout, textwrap.fill(values, terminal_width(), **gap))
        if coded:
            measured[name]["tssa"] = coded
            emit(sys.stdout, "\n".join(heads.in_terminal(coded)))
            files.make_folder(out)
            label = f" {Path(run).name}" if len(chosen.runs) > 1 else ""
            heads.bounds(out / f"tssa{label}.png", coded)
    files.make_folder(out)
    files.write_json(out / "layers.json", measured)
    if not layer_figures.layer_geometry(out / "layers.png", planes, measured):
        emit(sys.stderr, "note: no picture without matplotlib (pip install matplotlib)")
    emit(sys.stdout, f"in {out}")


def validation_batches(run, config, tokens):
    """One validation text or window of a language model each, until there are so many tokens."""
    task = causal.LanguageModelling.load(resolve_defaults(config), RunFolder(run), resume=True)
    windows, found = task.windows["val"], []
    while tokens > 0 and len(found) < len(windows):
        found.append(windows.take(np.array([len(found)])))
        tokens -= int((found[-1]["targets"] >= 0).sum())
    return found


def token_vectors(trained, batches, tokens):
    """Vectors (T, d) of the first `tokens` tokens after the input and after each layer."""
    found = []
    for batch in batches:
        layers = trained.model.layers(trained.params, batch["ids"])
        found.append([layer[batch["targets"] >= 0] for layer in layers])
    return [np.concatenate(parts)[:tokens] for parts in zip(*found, strict=True)]


def main(arguments=None):
    with run_with_exit_status() as outcome:
        analyze(parser().parse_args(arguments))
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
