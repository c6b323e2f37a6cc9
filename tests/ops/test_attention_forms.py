"""Softmax attention: what holds of each of its forms, and how a GPU goes through its blocks."""

import numpy as np
import pytest
from agreement import assert_close
from conftest import XP
from forms import ATTENTIONS
from hypothesis import given
from op_cases import draw

from minisum import ops
from minisum.fast.cuda import attention as form
from minisum.ops.softmax_attention import softmax, visible_keys


@pytest.mark.skipif(XP is not np, reason="the kernels themselves are in test_kernels.py")
@pytest.mark.parametrize("causal", [False, True])
@given(case=draw(n=(0, 9), m=(1, 9), cached=(1, 600)))
def test_a_gpus_blocks_of_weights(monkeypatch, causal, case):
    """How a GPU goes through texts and queries, with the plain forms of its two kernels."""
    n = min(case.n, case.m) if causal else case.n
    q, dy = case.normal("B H n h")[:, :, :n], case.normal("B H n d")[:, :, :n]
    k, v, mask = case.normal("B H m h"), case.normal("B H m d"), case.mask("B m")

    def weights(scores, mask, causal, scale):
        visible = visible_keys(np, mask, causal, *scores.shape[2:])
        visible = True if visible is None else visible
        return softmax(np.where(visible, scores * scale, -np.inf))

    def weights_back(dp, p, scale):
        return (dp - (dp * p).sum(axis=-1, keepdims=True)) * p * scale

    for m in (mask, None):
        y, back = ops.attention.plain(q, k, v, m, causal)
        with monkeypatch.context() as patch:
            patch.setattr(form, "CACHED", case.cached)
            patch.setattr(form, "LEAST_QUERIES", 2)
            patch.setattr(form, "LEAST_HEADS", 2)
            patch.setattr(form.compiling, "runs_on", lambda *arrays: True)
            patch.setattr(form.softmax, "attention_weights", weights)
            patch.setattr(form.softmax, "attention_weights_back", weights_back)
            fused, back_fused = form.attention(q, k, v, m, causal)
            assert_close(fused, y)
            for _ in range(2):
                for gradient, wanted in zip(back_fused(dy)[:3], back(dy)[:3], strict=True):
                    assert_close(gradient, wanted)


@given(case=draw(n=(1, 7), m=(0, 7)))
def test_the_last_queries_alone_give_the_last_rows(case):
    """What generation does: n new queries against all keys so far."""
    case.sizes["total"] = case.n + case.m
    q, k, v = (case.normal("B H total h") for _ in range(3))
    for op in ATTENTIONS.values():
        whole = op(q, k, v, causal=True)[0]
        assert_close(op(q[:, :, case.m :], k, v, causal=True)[0], whole[:, :, case.m :])


@pytest.mark.parametrize("name", ATTENTIONS)
def test_causal_attention_refuses_more_queries_than_keys(name):
    with pytest.raises(ValueError, match="at least as many keys as queries"):
        ATTENTIONS[name](
            XP.ones((1, 1, 3, 2)), XP.ones((1, 1, 2, 2)), XP.ones((1, 1, 2, 2)), None, True
        )


@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_single_key_is_the_answer_to_all_queries(name):
    q, k, v = XP.ones((1, 1, 3, 2)), XP.ones((1, 1, 1, 2)), XP.full((1, 1, 1, 2), 7.0)
    y, back = ATTENTIONS[name](q, k, v)
    assert (y == 7).all()
    assert [g.shape for g in back(XP.ones_like(y))[:3]] == [q.shape, k.shape, v.shape]


@given(case=draw())
def test_weights_of_attention_sum_to_one(case):
    q, k = case.normal("B H n h", 3.0), case.normal("B H n h", 3.0)
    for op in ATTENTIONS.values():
        assert_close(op(q, k, XP.ones((case.B, case.H, case.n, 2)))[0],
                     XP.ones((case.B, case.H, case.n, 2)))  # fmt: skip
