"""Direct summation, whole: a text classifier in NumPy with every gradient written by hand.

Each token contributes a vector that depends on its word and its position. The contributions of a
text are summed, and a linear layer turns the sum into a score for each class (P. Ekin, 2025):

    logits = Σ_t relu((embedding[word_t] * (positions[t] + 1)) @ W.T) @ head.T + bias

The texts are docstrings of Python's standard library, the classes the packages they come from.
Shapes: B texts in a batch, T tokens in all of them, width d, C classes.
"""

import argparse
import ast
import re
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np

CLASSES, MAX_LEN, WIDTH, BATCH, LEARNING_RATE, TOKEN_DROPOUT = 20, 256, 128, 64, 2e-3, 0.5
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings():
    """Yield (package, docstring) of every module, class and function of the standard library."""
    library = Path(ast.__file__).parent
    for path in sorted(library.rglob("*.py")):
        package, *inside = path.relative_to(library).with_suffix("").parts
        if package in sys.stdlib_module_names and not {"test", "tests", "idle_test"} & {*inside}:
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, DOCUMENTED):
                    yield package.removeprefix("_py").lstrip("_"), ast.get_docstring(node) or ""


def load_corpus():
    """Texts (tuples of words, no two alike, in random order), their labels, the class names."""
    owners = {}
    for package, text in docstrings():
        owners.setdefault(tuple(re.findall("[a-z0-9]+", text.lower())), set()).add(package)
    owner = {text: min(own) for text, own in owners.items() if len(own) == 1 and len(text) >= 5}
    classes = sorted(name for name, _ in Counter(owner.values()).most_common(CLASSES))
    texts = [text for text in owner if owner[text] in classes]
    np.random.default_rng(0).shuffle(texts)
    return texts, np.array([classes.index(owner[text]) for text in texts]), classes


def make_batch(texts):
    """(3, T): each token's word, its position in its text, and the index of that text."""
    tokens = [(ids, np.arange(len(ids)), np.full(len(ids), b)) for b, ids in enumerate(texts)]
    return np.concatenate(tokens, axis=1)


def classify(params, tokens, labels):
    """The mean loss of a batch, its accuracy, and the gradient of each parameter."""
    words, places, texts = tokens  # (T) each
    x = params["embedding"][words]  # (T, d)
    scale = params["positions"][places] + 1
    placed = x * scale
    contributions = np.maximum(placed @ params["W"].T, 0)
    features = sum_by(texts, contributions, len(labels))  # (B, d)
    logits = features @ params["head"].T + params["bias"]  # (B, C)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    one_hot = labels[:, None] == np.arange(logits.shape[1])
    loss = -log_p[one_hot].mean()

    dlogits = (np.exp(log_p) - one_hot) / len(labels)
    dfeatures = dlogits @ params["head"]  # (B, d)
    dprojected = dfeatures[texts] * (contributions > 0)  # (T, d)
    dplaced = dprojected @ params["W"]
    grads = {
        "bias": dlogits.sum(axis=0),
        "head": dlogits.T @ features,
        "W": dprojected.T @ placed,
        "positions": sum_by(places, dplaced * x, len(params["positions"])),
        "embedding": sum_by(words, dplaced * scale, len(params["embedding"])),
    }
    return loss, (logits.argmax(axis=1) == labels).mean(), grads


def sum_by(index, rows, size):
    """(size, d): row i is the sum of all rows[k] with index[k] = i."""
    sums = np.zeros((size, rows.shape[1]), rows.dtype)
    np.add.at(sums, index, rows)
    return sums


def adam_step(params, grads, m, v, t, rate, beta1=0.9, beta2=0.999, eps=1e-8):
    """Step t = 1, 2, ... of Adam: m averages gradients, v their squares. Kingma and Ba 2015."""
    for name, g in grads.items():
        m[name] += (1 - beta1) * (g - m[name])
        v[name] += (1 - beta2) * (g * g - v[name])
        params[name] -= rate * m[name] / (1 - beta1**t) / (np.sqrt(v[name] / (1 - beta2**t)) + eps)


def main(argv=None):
    parser = argparse.ArgumentParser(description="Train a text classifier on Python's docstrings.")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the texts (20)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (0)")
    args = parser.parse_args(argv)
    if args.epochs < 1 or args.seed < 0:
        parser.error("--epochs must be at least 1, --seed at least 0")
    texts, labels, classes = load_corpus()
    test, held_out = len(texts) // 5, len(texts) // 4  # test rows end at 1/5, validation at 1/4
    number = {word: i for i, word in enumerate(sorted(set().union(*texts[held_out:])))}
    texts = [[number[word] for word in text if word in number][:MAX_LEN] for text in texts]
    print(f"{len(texts)} texts, {len(number)} words, classes: {', '.join(classes)}")
    rng, d, C = np.random.default_rng(args.seed), WIDTH, len(classes)
    shapes = {"embedding": (len(number), d), "positions": (MAX_LEN, d), "W": (d, d)}
    shapes |= {"head": (C, d), "bias": C}
    params = {name: rng.normal(0, 0.05, shape).astype("f") for name, shape in shapes.items()}
    m, v, step = dict.fromkeys(params, 0.0), dict.fromkeys(params, 0.0), 0
    for epoch in range(args.epochs):
        order = held_out + rng.permutation(len(texts) - held_out)
        for rows in np.array_split(order, 1 + len(order) // BATCH):
            tokens = make_batch([texts[i] for i in rows])
            kept = rng.random(tokens.shape[1]) >= TOKEN_DROPOUT
            loss, _, grads = classify(params, tokens[:, kept], labels[rows])
            step += 1
            adam_step(params, grads, m, v, step, LEARNING_RATE * (1 - epoch / args.epochs))
        _, accuracy, _ = classify(params, make_batch(texts[test:held_out]), labels[test:held_out])
        print(f"epoch {epoch + 1}  loss {loss:.3f}  validation accuracy {accuracy:.3f}", flush=True)
    _, accuracy, _ = classify(params, make_batch(texts[:test]), labels[:test])
    print(f"test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    main()
