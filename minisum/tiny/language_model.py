"""A language model, whole: causal summation in NumPy with every gradient written by hand.

The model predicts each token from the ones before it. Of those it knows only running sums, one
vector per layer, so every new token costs the same (P. Ekin, 2025). The first layer's input x is
embedding[ids] * (positions + 2); each layer turns x into

    z = norm(x + (Σ_{s <= t} relu(relu(x_s @ W1.T) @ W2.T) @ Wo.T + bo) / max_len)
    y = norm(z + relu(z @ Wup.T + bup) @ Wdown.T + bdown)

The text is Python's own help; its frequent words are tokens, and all others are spelled in bytes.
Shapes: B windows of n tokens, width d, V tokens in the vocabulary, L layers.
"""

import argparse
import re
import signal
import sys
from collections import Counter
from pydoc_data.topics import topics

import numpy as np

MAX_LEN, WIDTH, LAYERS, VOCABULARY, BATCH, LEARNING_RATE = 128, 128, 2, 4096, 8, 3e-3
SAMPLE, TEMPERATURE, TOKEN = 100, 0.7, re.compile(rb" ?\w+| ?[^\w\s]+|\s+")


def load_corpus():
    """The distinct paragraphs of Python's help: nine tenths to train on, one tenth held out."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    paragraphs = list(dict.fromkeys(text.split("\n\n")))
    end = len(paragraphs) * 9 // 10
    return "\n\n".join(paragraphs[:end]).encode(), "\n\n".join(paragraphs[end:]).encode()


def encode(text, number):
    """The token ids of `text`; a token outside the vocabulary is spelled in bytes."""
    return np.array([i for t in TOKEN.findall(text) for i in ([number[t]] if t in number else t)])


def init(rng, V, L, d):
    """Initial parameters by name; those of the L layers are stacked along the first axis."""
    params = {"embedding": rng.normal(size=(V, d)), "positions": rng.normal(size=(MAX_LEN, d))}
    params |= {name: rng.normal(0, 0.05, (L, d, d)) for name in ("W1", "W2", "Wo", "Wup", "Wdown")}
    params |= {name: np.zeros((L, d)) for name in ("bo", "bup", "bdown", "b1", "b2")}
    params |= {"g1": np.ones((L, d)), "g2": np.ones((L, d)), "gain": np.ones(d)}
    params |= {"bias": np.zeros(d), "head": rng.normal(0, 0.05, (V, d)), "head_bias": np.zeros(V)}
    return {name: array.astype(np.float32) for name, array in params.items()}


def linear(x, W, b=0.0):
    """x @ W.T + b.   x (B, n, i), W (o, i), b (o) -> (B, n, o); back(dy) -> dx, dW, db"""

    def back(dy):
        rows = dy.reshape(-1, len(W))  # (B n, o)
        return dy @ W, rows.T @ x.reshape(len(rows), -1), rows.sum(axis=0)

    return x @ W.T + b, back


def norm(x, gain, bias):
    """Layer norm: each vector of x with mean 0 and variance 1, times gain (d), plus bias (d)."""
    r = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    normed = (x - x.mean(axis=-1, keepdims=True)) * r

    def back(dy):
        g = dy * gain
        dx = g - g.mean(axis=-1, keepdims=True) - normed * (g * normed).mean(axis=-1, keepdims=True)
        return r * dx, (dy * normed).sum(axis=(0, 1)), dy.sum(axis=(0, 1))

    return normed * gain + bias, back


def layer(params, i, x, memory, scale):
    """Layer i: x (B, n, d), memory (B, d), the sum over earlier tokens -> y, the new sum, back."""
    first, back_first = linear(x, params["W1"][i])
    second, back_second = linear(np.maximum(first, 0), params["W2"][i])
    sums = memory[:, None] + np.maximum(second, 0).cumsum(axis=1)
    mixed, back_mixed = linear(sums, params["Wo"][i], params["bo"][i])
    z, back_norm1 = norm(x + mixed * scale, params["g1"][i], params["b1"][i])
    inner, back_inner = linear(z, params["Wup"][i], params["bup"][i])
    outer, back_outer = linear(np.maximum(inner, 0), params["Wdown"][i], params["bdown"][i])
    y, back_norm2 = norm(z + outer, params["g2"][i], params["b2"][i])

    def back(dy, grads):
        dz, grads["g2"][i], grads["b2"][i] = back_norm2(dy)
        dactive, grads["Wdown"][i], grads["bdown"][i] = back_outer(dz)
        dinner, grads["Wup"][i], grads["bup"][i] = back_inner(dactive * (inner > 0))
        dx, grads["g1"][i], grads["b1"][i] = back_norm1(dz + dinner)
        dsums, grads["Wo"][i], grads["bo"][i] = back_mixed(dx * scale)
        dsecond = dsums[:, ::-1].cumsum(axis=1)[:, ::-1] * (second > 0)
        dactive, grads["W2"][i], _ = back_second(dsecond)
        dthrough, grads["W1"][i], _ = back_first(dactive * (first > 0))
        return dx + dthrough

    return y, sums[:, -1], back


def language_model(params, ids, state=None):
    """ids (B, n), state (tokens read so far, a sum per layer) -> logits (B, n, V), state, back."""
    table, (B, n) = params["positions"], ids.shape
    read, sums = state or (0, np.zeros((len(params["W1"]), B, table.shape[1]), table.dtype))
    t = read + np.arange(n)  # beyond max_len: the mean position, and sums divided by t + 1
    positions = np.vstack([table, table.mean(axis=0)])[np.minimum(t, len(table))] + 2  # (n, d)
    scale = (1 / np.maximum(len(table), t + 1))[:, None].astype(table.dtype)  # (n, 1)
    embedded = params["embedding"][ids]  # (B, n, d)
    x, sums, backs = embedded * positions, list(sums), []
    for i, memory in enumerate(sums):
        x, sums[i], back_layer = layer(params, i, x, memory, scale)
        backs.append(back_layer)
    x, back_norm = norm(x, params["gain"], params["bias"])
    logits, back_head = linear(x, params["head"], params["head_bias"])  # (B, n, V)

    def back(dlogits):
        grads = {name: np.zeros_like(array) for name, array in params.items()}
        dx, grads["head"], grads["head_bias"] = back_head(dlogits)
        dx, grads["gain"], grads["bias"] = back_norm(dx)
        for back_layer in reversed(backs):
            dx = back_layer(dx, grads)
        grads["positions"][:n] = (dx * embedded).sum(axis=0)
        np.add.at(grads["embedding"], ids, dx * positions)
        return grads

    return logits, (read + n, sums), back


def next_token_loss(params, text):
    """The mean of -log softmax(logits)[target] over windows of text (B, n + 1), and its back()."""
    logits, _, back = language_model(params, text[:, :-1])
    log_p = logits - logits.max(axis=-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
    targets = (*np.indices(text[:, 1:].shape), text[:, 1:])
    dlogits = np.exp(log_p)
    dlogits[targets] -= 1
    return -log_p[targets].mean(), lambda: back(dlogits / text[:, 1:].size)


def adam_step(params, grads, m, v, t, rate, beta1=0.9, beta2=0.999, eps=1e-8):
    """Step t = 1, 2, ... of Adam: m averages gradients, v their squares. Kingma and Ba 2015."""
    for name, g in grads.items():
        m[name] += (1 - beta1) * (g - m[name])
        v[name] += (1 - beta2) * (g * g - v[name])
        params[name] -= rate * m[name] / (1 - beta1**t) / (np.sqrt(v[name] / (1 - beta2**t)) + eps)


def generate(params, ids, rng, state=None):
    """Yield tokens that continue `ids`: argmax of logits + Gumbel noise is a draw from softmax."""
    while True:
        logits, state, _ = language_model(params, np.array([ids]), state)
        ids = [(logits[0, -1] / TEMPERATURE + rng.gumbel(size=logits.shape[-1])).argmax()]
        yield ids[0]


def main(argv=None):
    parser = argparse.ArgumentParser(description="Train a language model on Python's own help.")
    parser.add_argument("--prompt", default="The function", help="text to continue (The function)")
    parser.add_argument("--steps", type=int, default=600, help="training steps (600)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (0)")
    args = parser.parse_args(argv)
    if not args.prompt or args.steps < 1 or args.seed < 0:
        parser.error("--prompt must not be empty, --steps at least 1, --seed at least 0")
    text, held_out = load_corpus()
    frequent = Counter(TOKEN.findall(text)).most_common(VOCABULARY - 256)
    vocabulary = [bytes([byte]) for byte in range(256)] + [token for token, _ in frequent]
    number = {token: i for i, token in enumerate(vocabulary)}
    ids, validation = encode(text, number), encode(held_out, number)
    bits = len(validation) / len(held_out) / np.log(2)  # bits per byte = bits * nats per token
    counts = np.bincount(ids, minlength=len(vocabulary)) + 1
    unigram = -np.log(counts / counts.sum())[validation].mean()
    print(f"{len(ids)} tokens; by word frequencies alone {unigram * bits:.2f} bits per byte")
    windows = validation[: len(validation) // MAX_LEN * MAX_LEN].reshape(-1, 1, MAX_LEN)
    rng = np.random.default_rng(args.seed)
    params = init(rng, len(vocabulary), LAYERS, WIDTH)
    m, v = dict.fromkeys(params, 0.0), dict.fromkeys(params, 0.0)
    for step in range(1, args.steps + 1):
        batch = ids[rng.integers(len(ids) - MAX_LEN, size=(BATCH, 1)) + np.arange(MAX_LEN + 1)]
        _, back = next_token_loss(params, batch)
        adam_step(params, back(), m, v, step, LEARNING_RATE * (1 - step / args.steps))
        if step % 100 == 0 or step == args.steps:
            nll = np.mean([next_token_loss(params, window)[0] for window in windows])
            score = f"perplexity {np.exp(nll):.1f}, {nll * bits:.2f} bits per byte"
            print(f"step {step}  validation: {score}", flush=True)
    prompt = args.prompt.encode(errors="surrogateescape")
    tokens = generate(params, encode(prompt, number), rng)
    text = prompt + b"".join(vocabulary[next(tokens)] for _ in range(SAMPLE))
    print(text.decode(errors="replace"))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    main()
