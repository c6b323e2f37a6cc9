"""Generation with a language model: one token at a time, from the state after all before it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minisum.backend import array_module, to_numpy
from minisum.errors import UserError
from minisum.params import Params


def generate(
    model: Any,
    params: Params,
    prompt: Sequence[int] | np.ndarray,
    rng: np.random.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    forget_at: int | None = None,
    top_p: float | None = None,
) -> Iterator[int]:
    """Yield token ids without end, each drawn from the model's distribution of the next one.

    prompt: token ids, read in one pass. rng: a numpy.random.Generator. temperature divides the
    scores: 0 always takes the highest, 1 draws from the model's distribution. top_k: draw only
    among that many of the highest. top_p: see `draw`. forget_at: a token at which state and
    positions restart.

    The cost of a token does not depend on how many came before, except with attention layers.
    """
    if not len(prompt):
        raise UserError("a model can only go on from at least one token: the prompt has none")
    xp = array_module(params["embedding"])
    state, new = None, [int(token) for token in prompt]
    while True:
        scores, state = model.step(params, xp.asarray([new]), state)
        token = draw(to_numpy(scores[0]), rng, temperature, top_k, top_p)
        yield token
        new = [token]
        if token == forget_at:
            state = None


def draw(
    scores: np.ndarray,
    rng: np.random.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """A token id drawn from softmax(scores / temperature), scores (V,), of the `top_k` highest.

    top_p: of the fewest most probable tokens whose probabilities sum to at least this (Holtzman et
    al. 2020, "The curious case of neural text degeneration").
    """
    if temperature == 0:
        return int(scores.argmax())
    scores = scores.astype(np.float64)
    candidates = np.arange(len(scores))
    if top_k is not None and top_k < len(scores):
        candidates = np.sort(np.argpartition(scores, -top_k)[-top_k:])
    if top_p is not None:
        order = candidates[np.argsort(-scores[candidates], kind="stable")]
        powers = np.exp((scores[order] - scores[order[0]]) / temperature)
        before = np.append(0, np.cumsum(powers[:-1]))  # what the likelier ones have
        candidates = np.sort(order[before < top_p * powers.sum()])
    # Exponential clocks: the first to ring, at rate e^score, is a draw from the softmax.
    waits = np.log(rng.standard_exponential(len(candidates)))
    return int(candidates[(scores[candidates] / temperature - waits).argmax()])
