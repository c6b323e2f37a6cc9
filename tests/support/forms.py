"""The forms of every op, each of which the tests can have run alone, with its chunks made small."""

import contextlib

import pytest
from conftest import XP
from op_cases import EXACT, SMOOTH

from minisum import ops, optim
from minisum.fast import (
    FORMS,
    blocked_losses,
    blocked_rectified,
    blocked_window,
    chunked_delta_rule,
    chunked_product,
    chunked_slots,
    chunks,
    host_activations,
    host_adam,
    host_attention,
    host_embedding,
    host_summation,
    log_linear_chunks,
    pieces_of_scan,
    running,
)
from minisum.fast.cuda import attention, losses
from minisum.normal import normal_cdf
from minisum.ops.embedding import add_rows
from minisum.ops.linear import add_scaled, sum_leading
from minisum.ops.losses import score_targets
from minisum.ops.running import cumsum

OPS = EXACT | SMOOTH
PLACE = XP.__name__

# What is dispatched: the ops of that name, and functions without a gradient.
DISPATCHED = {name: getattr(ops, name) for name in FORMS if name in ops.__all__} | {
    "add_rows": add_rows,
    "adam_update": optim.adam_update,
    "add_scaled": add_scaled,
    "cumsum": cumsum,
    "normal_cdf": normal_cdf,
    "score_targets": score_targets,
    "sum_leading": sum_leading,
    "unit_triangular_solve": chunked_delta_rule.unit_triangular_solve,
}


def set_chunks(monkeypatch, tokens):
    """Borders of chunks inside texts of a few tokens; attention in blocks from two chunks on."""
    sizes = [
        (chunked_delta_rule, "CHUNK"), (chunked_delta_rule, "CHUNK_BY_CHANNEL"),
        (chunked_product, "CHUNK"), (chunked_slots, "CHUNK"), (pieces_of_scan, "LEAST"),
        (chunked_product, "CHUNK_BY_CHANNEL"), (host_attention, "LEAST_QUERIES"),
        (blocked_losses, "BLOCK"), (running, "CHUNK"),
    ]  # fmt: skip
    for module, size in sizes:
        monkeypatch.setattr(module, size, tokens)
    monkeypatch.setattr(log_linear_chunks, "CHUNK", 1 << (tokens.bit_length() - 1))
    for module, limit in [
        (blocked_window, "LEAST_WINDOWS"), (pieces_of_scan, "CACHED"), (pieces_of_scan, "BUSY"),
    ]:  # fmt: skip
        monkeypatch.setattr(module, limit, 0)
    for module, size in [(chunks, "PIECE"), (host_attention, "LEAST_KEYS")]:
        monkeypatch.setattr(module, size, 2 * tokens)
    # These count numbers, not tokens.
    for module, size in [
        (host_activations, "PIECE"), (host_adam, "PIECE"), (host_embedding, "ROWS_AT_A_TIME"),
        (blocked_losses, "CACHED"), (host_summation, "CACHED"), (host_attention, "CACHED"),
        (blocked_rectified, "CACHED"),
        (attention, "CACHED"), (losses, "CACHED"),
    ]:  # fmt: skip
        monkeypatch.setattr(module, size, 3 * tokens)


def forms(name):
    """The names of the faster forms of an op where the tests' arrays live."""
    return FORMS[name][PLACE == "cupy"] if name in FORMS else []


@contextlib.contextmanager
def only(name, module):
    """Calls of the op `name` go to its form in `module` alone, or to the textbook's for None.

    Gives a list with an entry for each call that the form took.
    """
    if name not in DISPATCHED:
        yield []
        return
    found, taken = DISPATCHED[name].forms(PLACE), []
    kept = found[:]

    def form(*arguments, **options):
        result = chosen(*arguments, **options)
        if result is not NotImplemented:
            taken.append(chosen)
        return result

    if module is not None:
        chosen = kept[forms(name).index(module)]
    found[:] = [form] if module is not None else []
    try:
        yield taken
    finally:
        found[:] = kept


CASES = [(case, module) for case in OPS for module in [None, *forms(case.split()[0])]]
every_form = pytest.mark.parametrize(
    "form", CASES, indirect=True, ids=[f"{case}: {module or 'textbook'}" for case, module in CASES]
)


def _attention(module):
    def attention(*arguments, **options):
        with pytest.MonkeyPatch.context() as patch, only("attention", module):
            patch.setattr(host_attention, "LEAST_KEYS", 3)
            patch.setattr(host_attention, "CACHED", 8)
            patch.setattr(host_attention, "LEAST_QUERIES", 2)
            return ops.attention(*arguments, **options)

    return attention


ATTENTIONS = {module or "textbook": _attention(module) for module in [None, *forms("attention")]}
