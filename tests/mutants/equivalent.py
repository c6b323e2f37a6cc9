"""Mutants that no test can notice, with the reason why they change nothing.

A line is a mutant as `tests.mutants` prints it; one that ends with … stands for all that begin so.
"""

EQUIVALENT = {
    "the other form of the same sum; its second line runs on a GPU alone": [
        "minisum/ops/attention.py _row_dots: if xp is np: -> if xp is not np:",
        "minisum/ops/attention.py _row_dots: if xp is np: -> if False:",
        "minisum/ops/attention.py _row_dots: if xp is np: -> if True:",
        "minisum/ops/attention.py _row_dots: array_module(a) -> a",
        "minisum/ops/attention.py _row_dots: a * b -> …",
        "minisum/ops/attention.py _row_dots: (a * b).sum(…",
    ],
    "causal is true, and there are queries": [
        "minisum/ops/attention.py _visible: _offset(causal, n, m) -> _offset(n, n, m)",
    ],
    "both are 1/2 at 0": [
        "minisum/ops/activations.py _sigmoid: xp.where(x >= 0, 1, small) -> "
        "xp.where(x > 0, 1, small)",
        "minisum/ops/losses.py binary_cross_entropy.back: xp.where(logits >= 0, 1, small) -> "
        "xp.where(logits > 0, 1, small)",
    ],
    "blocks that no query of theirs may see are looked at, and add zeros": [
        "minisum/ops/attention.py attention_blocked.key_blocks: queries.stop + m - n -> …",
        "minisum/ops/attention.py attention_blocked.key_blocks: "
        "queries.stop + m - n if causal else m -> m",
    ],
    "float16 alone has another accumulator, and is added to float16 all the same": [
        "minisum/ops/attention.py attention_blocked.back: "
        "xp.exp(scores_of(queries, keys) - L[:, :, queries]).astype(q.dtype, copy=False) -> "
        "xp.exp(scores_of(queries, keys) - L[:, :, queries])",
        "minisum/ops/norms.py layer_norm.back: (dy * gain).astype(wide, copy=False) -> dy * gain",
    ],
    "a short cut for dloss = 1 that the other line equals": [
        "minisum/ops/blocked_loss.py _scaled.back: isinstance(dloss, float) -> …",
        "minisum/ops/blocked_loss.py _scaled.back: "
        "isinstance(dloss, float) and dloss == 1 -> dloss == 1",
        "minisum/ops/blocked_loss.py _scaled.back: "
        "if isinstance(dloss, float) and dloss == 1: -> if False:",
    ],
    "the same size or number, taken from another array": [
        "minisum/ops/norms.py _row_mean: "
        "xp.einsum('...d,...d->...', a, b)[..., None] / a.shape[-1] -> "
        "xp.einsum('...d,...d->...', a, b)[..., None] / b.shape[-1]",
        "minisum/ops/chunks.py in_pieces.back: parts[0] is None -> parts[1] is None",
        "minisum/ops/chunks.py in_pieces.back: parts[0] is None -> parts[-1] is None",
        "minisum/ops/chunks.py carry: added[:, :, 0] -> added[:, :, -1]",
        "minisum/ops/delta_rule.py _delta_rule.back: range(K.shape[2]) -> range(V.shape[2])",
        "minisum/ops/products.py _weights: C = Q.shape[-2] -> C = K.shape[-2]",
        "minisum/ops/products.py _weights: Q.shape[:-1] -> K.shape[:-1]",
        "minisum/ops/products.py _back_weights: C = Q.shape[-2] -> C = K.shape[-2]",
        "minisum/ops/products.py _back_weights: xp.zeros_like(Q) -> xp.zeros_like(K)",
        "minisum/ops/running.py _scan: range(1, h.shape[2]) -> range(1, kept.shape[2])",
        "minisum/ops/running.py _scan: range(h.shape[1]) -> range(kept.shape[1])",
        "minisum/ops/running.py _scan: h.reshape(h.shape[0], -1, h.shape[-1]) -> "
        "h.reshape(kept.shape[0], -1, h.shape[-1])",
        "minisum/ops/running.py _scan: h.reshape(h.shape[0], -1, h.shape[-1]) -> "
        "h.reshape(h.shape[0], -1, kept.shape[-1])",
        "minisum/mixers/tssa.py token_statistics.back: "
        "(dD * (square - D)).sum(axis=-1) / P[..., 0] -> "
        "(dD * (square - D)).sum(axis=-1) / P[..., -1]",
    ],
    "any negative number says that NumPy shall find the size": [
        "minisum/ops/linear.py linear.back: dy.reshape(-1, W.shape[0]) -> "
        "dy.reshape(-2, W.shape[0])",
        "minisum/ops/linear.py sum_rows: x.reshape(-1, x.shape[-1]) -> x.reshape(-2, x.shape[-1])",
        "minisum/models/long_document.py LongDocumentClassifier.features.read: "
        "ids[b, start:stop].reshape(-1, columns) -> ids[b, start:stop].reshape(-2, columns)",
        "minisum/models/long_document.py LongDocumentClassifier.features.read: "
        "mask[b, start:stop].reshape(-1, columns) -> mask[b, start:stop].reshape(-2, columns)",
        "minisum/ops/chunks.py cumsum: "
        "x.reshape(*x.shape[:axis], -1, CUMSUM_CHUNK, *x.shape[axis + 1:]) -> "
        "x.reshape(*x.shape[:axis], -2, CUMSUM_CHUNK, *x.shape[axis + 1:])",
        "minisum/ops/running.py _scan: h.reshape(h.shape[0], -1, h.shape[-1]) -> "
        "h.reshape(h.shape[0], -2, h.shape[-1])",
    ],
    "a special case for speed that the general form covers": [
        "minisum/ops/chunks.py cumsum: if n <= CUMSUM_CHUNK: -> if True:",
        "minisum/ops/chunks.py cumsum: if padding: -> if True:",
        "minisum/ops/chunks.py split_chunks: if n != N * C: -> …",
        "minisum/ops/chunks.py sum_to: x.sum(axis=axes, keepdims=True) if axes else x -> "
        "x.sum(axis=axes, keepdims=True)",
        "minisum/ops/chunks.py back_chunk_decays: log_decay.shape[-1] == 1 -> "
        "log_decay.shape[-1] == 0",
        "minisum/ops/chunks.py back_chunk_decays: if log_decay.shape[-1] == 1: -> if False:",
        "minisum/ops/chunks.py back_chunk_decays: log_decay.shape -> db.shape (1)",
        "minisum/ops/chunks.py back_chunk_decays: db, through_state = "
        "(db.sum(-1, keepdims=True), through_state.sum(-1, keepdims=True)) -> pass",
        "minisum/ops/kernel_attention.py kernel_attention.back: if clamp: -> if True:",
        "minisum/ops/products.py _weights: b.shape[-1] == 1 -> b.shape[-1] == 0",
        "minisum/ops/products.py _weights: if b.shape[-1] == 1: -> if False:",
        "minisum/ops/products.py _back_weights: b.shape[-1] == 1 -> b.shape[-1] == 0",
        "minisum/ops/products.py _back_weights: b is None or b.shape[-1] == 1 -> b is None",
    ],
    "chunks of any size give the same, and nobody reads what stands after the last token": [
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) -> math.isqrt(n - 0)",
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) -> math.isqrt(n)",
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) -> math.isqrt(n + 1)",
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) -> math.isqrt(d - 1)",
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) -> n - 1",
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) + 1 -> 1",
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) + 1 -> math.isqrt(n - 1)",
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) + 1 -> math.isqrt(n - 1) + 0",
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) + 1 -> math.isqrt(n - 1) + 2",
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) + 1 | 1 -> math.isqrt(n - 1) + 1",
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) + 1 | 1 -> 1",
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) + 1 | 1 -> math.isqrt(n - 1) + 1 | 0",
        "minisum/ops/running.py _chunked: math.isqrt(n - 1) + 1 | 1 -> math.isqrt(n - 1) + 1 | 2",
        "minisum/ops/running.py _chunked: N = -(-n // C) -> N = --n",
        "minisum/ops/running.py _chunked: if n != N * C: -> if True:",
        "minisum/ops/running.py _chunked: if n != N * C: -> if n != C:",
        "minisum/ops/running.py _chunked: if n != N * C: -> if n != N:",
        "minisum/ops/running.py _chunked: if n != N * C: -> if n != N / C:",
        "minisum/ops/running.py _chunked: if n != N * C: -> if n != N * N:",
        "minisum/ops/running.py _chunked: array_module(x).zeros((B, N * C, d), x.dtype) -> "
        "array_module(x).ones((B, N * C, d), x.dtype)",
    ],
    "zero at padding as it is: relu(0) has slope 0, w and its share are 0, Wβ met only zeros": [
        "minisum/mixers/cosformer.py CosFormer.mix.back: keep_real(back_wide_k(dwide_k), mask) -> "
        "back_wide_k(dwide_k)",
        "minisum/mixers/tssa.py TSSA.mix.back: keep_real(dw, mask) -> dw",
        "minisum/mixers/deltanet.py queries_keys_values.back: keep_real(dbeta, mask) -> dbeta",
    ],
    "NumPy's form of direct summation reads the mask row by row in any shape": [
        "minisum/models/long_document.py LongDocumentClassifier.features.read: "
        "mask[b, start:stop].reshape(-1, columns) -> mask[b, start:stop]",
    ],
    "a worker more than needed, whose gradients are zeros": [
        "minisum/models/long_document.py LongDocumentClassifier.features.back: "
        "len(owned) < threads -> len(owned) <= threads",
    ],
    "the same numbers in a wider type, added to arrays of the narrow one": [
        "minisum/models/long_document.py LongDocumentClassifier.features.back: "
        "(dfeatures / divisor).astype(table.dtype, copy=False) -> dfeatures / divisor",
    ],
    "differs only where a sum is 1e-24 or 1e-12 to the last bit": [
        "minisum/mixers/tssa.py token_statistics.back: "
        "xp.where(raw > 1e-24, (ds * (square / N)).sum(axis=2, keepdims=True), 0) -> "
        "xp.where(raw >= 1e-24, (ds * (square / N)).sum(axis=2, keepdims=True), 0)",
        "minisum/mixers/tssa.py token_statistics.back: "
        "xp.where(raw > 1e-24, (ds * (square / N)).sum(axis=2, keepdims=True), 0) -> "
        "xp.where(N > 1e-24, (ds * (square / N)).sum(axis=2, keepdims=True), 0)",
        "minisum/mixers/tssa.py running_token_statistics.back: "
        "xp.where(raw > 1e-12, -share * (square / C), 0) -> "
        "xp.where(raw >= 1e-12, -share * (square / C), 0)",
        "minisum/mixers/tssa.py running_token_statistics.back: "
        "xp.where(raw > 1e-12, -share * (square / C), 0) -> "
        "xp.where(C > 1e-12, -share * (square / C), 0)",
    ],
}

LINES = [line for lines in EQUIVALENT.values() for line in lines]
BEGINNINGS = tuple(line[:-1] for line in LINES if line.endswith("…"))


def changes_nothing(mutant):
    return mutant in LINES or mutant.startswith(BEGINNINGS)
