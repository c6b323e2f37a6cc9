"""What a mixer can learn of the attention in its layer: its outputs, or its weights.

Zhang et al. 2024, "The Hedgehog & the Porcupine", teach feature maps the weights and then train the
whole model on its task.
"""

import math

from minisum.backend import array_module
from minisum.mixers.base import to_heads
from minisum.ops import kernel_cross_entropy
from minisum.ops.softmax_attention import softmax


def outputs(block, params, seen, mask):
    """Gradients of a block's mixer for the loss |y - a|² / |a|², a what attention answered."""
    x, answer = seen
    y, back = block.mixer(params, x, mask)
    error = (y * block.scale - answer) / (answer * answer).sum()
    return back(2 * block.scale * error)[1]


def weights(block, params, seen, mask):
    """Gradients of what the maps φ of a linear attention learn; queries and keys are held fixed.

    Loss: `kernel_cross_entropy` of softmax(q @ k.T / √h) by φ(q)·φ(k), a mean over real queries.
    """
    mixer, (x, _) = block.mixer, seen
    q, _ = to_heads(params["q"], x, mixer.heads)
    k, _ = to_heads(params["k"], x, mixer.heads)
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])  # (B, H, n, n)
    wanted = softmax(array_module(x).where(mask[:, None, None], scores, -math.inf))
    phi_q, back_q = mixer.features(mixer.map.query, params["q_map"], q)
    phi_k, back_k = mixer.features(mixer.map.key, params["k_map"], k)
    _, back = kernel_cross_entropy(phi_q, phi_k, wanted, mask)
    dphi_q, dphi_k, *_ = back(1.0)
    return {"q_map": back_q(dphi_q)[1], "k_map": back_k(dphi_k)[1]}


# By what a model begins with.
LESSONS = {"matched": outputs, "matched_weights": weights}
