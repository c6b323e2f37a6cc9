"""Token statistics attention (TSSA) inside a language model: which head has whom, in how many nats.

A TSSA layer assigns each token to its heads and moves it a step against the gradient of R̄, the
bound of the coding rate (`minisum.ops.coding_rate_bound`): tokens that share a head become alike.
"""

import numpy as np

from minisum.layers import norm_layer
from minisum.mixers.tssa import TSSA
from minisum.ops import coding_rate, coding_rate_bound
from train.run.figures import finish, picture

OFTEN, SHOWN = 5, 6  # a token must occur so often to be listed; so many a head


def codings(model, params, tokenizer, batches):
    """A dict for each TSSA layer of a language model that reads ids (1, n), one text after another.

    rate, bound: the nats a token of the layer's input, in the coordinates of its heads and with its
    memberships; after: the bound once the layer's step is added there; shares: how much of the
    tokens each head has; strongest: the tokens with the largest mean membership of each head.
    """
    blocks = enumerate(model.stack.blocks)
    found = {i: [] for i, block in blocks if isinstance(block.mixer, TSSA)}
    read = []
    for ids in batches if found else ():
        layers = model.layers(params, ids)
        for i, texts in found.items():
            block, own = model.stack.blocks[i], params["blocks"][str(i)]
            h = norm_layer(own["norm1"], layers[i])[0] if block.norm_first else layers[i]
            w, o, pi = block.mixer.memberships(own["mixer"], h)
            nats = [coding_rate(w, pi), coding_rate_bound(w, pi), coding_rate_bound(w + o, pi)]
            texts.append(([float(R[0]) for R, _ in nats], pi[0].T))
        read.append(ids[0])
    return [summed_up(i, texts, np.concatenate(read), tokenizer) for i, texts in found.items()]


def summed_up(layer, texts, ids, tokenizer):
    """A layer's dict of `codings`, from (nats, Π (n, H)) of each text and the ids of all."""
    nats, memberships = zip(*texts, strict=True)
    memberships = np.concatenate(memberships)
    rate, bound, after = np.sum(nats, axis=0) / len(ids)
    kinds, place, counts = np.unique(ids, return_inverse=True, return_counts=True)
    means = np.zeros((len(kinds), memberships.shape[1]))
    np.add.at(means, place, memberships)
    means /= counts[:, None]
    often = np.flatnonzero(counts >= min(OFTEN, counts.max()))
    strongest = kinds[often[np.argsort(-means[often], axis=0)[:SHOWN]]].T
    return {
        "layer": layer + 1, "rate": rate, "bound": bound, "after": after,
        "shares": memberships.mean(axis=0).tolist(),
        "strongest": [[tokenizer.decode([t]) for t in head] for head in strongest.tolist()],
    }  # fmt: skip


def in_terminal(layers):
    """Lines: the nats of every layer, then its heads."""
    for found in layers:
        rate, bound, after = (f"{found[name]:.2f}" for name in ("rate", "bound", "after"))
        nats = f"coding rate {rate} nats a token, its bound {bound}, after the step {after}"
        yield f"  TSSA in layer {found['layer']}: {nats}"
        heads = zip(found["shares"], found["strongest"], strict=True)
        for head, (share, tokens) in enumerate(heads, start=1):
            yield f"    head {head:<3} {share:6.1%}  " + " ".join(map(repr, tokens))


@picture(9, 4)
def bounds(figure, layers):
    """The bound before and after each layer's own step, and the shares of the heads."""
    curve, shares = figure.subplots(1, 2)
    places = [found["layer"] for found in layers]
    titles = {"bound": "bound", "after": "bound after the step", "rate": "coding rate"}
    for name, label in titles.items():
        curve.plot(places, [found[name] for found in layers], marker="o", label=label)
    curve.xaxis.get_major_locator().set_params(integer=True)
    finish(curve, "layer", "nats a token")
    image = shares.imshow([found["shares"] for found in layers], aspect="auto", vmin=0)
    shares.set(xlabel="head", ylabel="TSSA layer")
    shares.set_xticks(range(len(layers[0]["shares"])), range(1, 1 + len(layers[0]["shares"])))
    shares.set_yticks(range(len(places)), places)
    figure.colorbar(image, label="share of the tokens")
