"""Mutants that no test can notice, with the reason why they change nothing.

A line is a mutant as `tests.mutants` prints it; one that ends with … stands for all that begin so.
"""

EQUIVALENT = {
    "both are 1/2 at 0": [
        "minisum/ops/activations.py _sigmoid: xp.where(x >= 0, 1, small) -> "
        "xp.where(x > 0, 1, small)",
        "minisum/ops/losses.py binary_cross_entropy.back: xp.where(logits >= 0, 1, small) -> "
        "xp.where(logits > 0, 1, small)",
    ],
    "a short cut for dloss = 1 that the other line equals": [
        "minisum/fast/blocked_losses.py linear_cross_entropy.back: isinstance(dloss, float) -> …",
        "minisum/fast/blocked_losses.py linear_cross_entropy.back: "
        "isinstance(dloss, float) and dloss == 1 -> dloss == 1",
        "minisum/fast/blocked_losses.py linear_cross_entropy.back: "
        "if isinstance(dloss, float) and dloss == 1: -> if False:",
    ],
    "the same size or number, taken from another array": [
        "minisum/fast/host_norms.py layer_norm.back: "
        "np.einsum('...d,...d->...', dx, normed)[..., None] / x.shape[-1] -> "
        "np.einsum('...d,...d->...', dx, normed)[..., None] / gain.shape[-1]",
        "minisum/ops/delta.py delta_rule.back: xp.zeros_like(faded[0]) -> xp.zeros_like(faded[-1])",
        "minisum/ops/losses.py linear_cross_entropy.back: db[0] if db else None -> "
        "db[-1] if db else None",
        "minisum/ops/softmax_pooling.py running_softmax_pool.back: xp.empty_like(y) -> "
        "xp.empty_like(w)",
        "minisum/ops/softmax_pooling.py running_softmax_pool.back: xp.empty_like(y) -> "
        "xp.empty_like(w) (1)",
        "minisum/ops/delta.py delta_rule.back: (q, k, v, beta, k, k) -> (k, k, v, beta, k, k)",
        "minisum/ops/products.py causal_product.back: (q, k, v, k) -> (k, k, v, k)",
        "minisum/fast/chunks.py in_pieces.back: parts[0] is None -> parts[1] is None",
        "minisum/fast/chunks.py in_pieces.back: parts[0] is None -> parts[-1] is None",
        "minisum/fast/chunks.py carry: added[:, :, 0] -> added[:, :, -1]",
        "minisum/fast/chunked_delta_rule.py _delta_rule.back: range(K.shape[2]) -> "
        "range(V.shape[2])",
        "minisum/fast/decayed_products.py decayed_products.back:  for a in (x, y) -> "
        " for a in (y, y)",
        "minisum/fast/scans.py _scan: range(1, h.shape[2]) -> range(1, kept.shape[2])",
        "minisum/fast/scans.py _scan: range(h.shape[1]) -> range(kept.shape[1])",
        "train/run/figures.py predicted_against_true: 300 / len(true) -> 300 / len(predicted)",
        "minisum/models/in_context.py by_gram.back: xp.zeros_like(r[0]) -> xp.zeros_like(r[1])",
        "minisum/models/in_context.py by_gram.back: xp.zeros_like(r[0]) -> xp.zeros_like(r[-1])",
        "minisum/mixers/tssa.py token_statistics.back: "
        "(dD * (square - D)).sum(axis=-1) / P[..., 0] -> "
        "(dD * (square - D)).sum(axis=-1) / P[..., -1]",
    ],
    "any negative number says that NumPy shall find the size": [
        "minisum/fast/host_activations.py gelu.back: dy.reshape(-1) -> dy.reshape(-2)",
        "minisum/ops/linear.py linear.back: dy.reshape(-1, W.shape[0]) -> "
        "dy.reshape(-2, W.shape[0])",
        "minisum/models/long_document.py LongDocumentClassifier.features.read: "
        "ids[b, start:stop].reshape(-1, columns) -> ids[b, start:stop].reshape(-2, columns)",
        "minisum/models/long_document.py LongDocumentClassifier.features.read: "
        "mask[b, start:stop].reshape(-1, columns) -> mask[b, start:stop].reshape(-2, columns)",
        "minisum/fast/running.py cumsum: "
        "x.reshape(*x.shape[:axis], -1, CHUNK, *x.shape[axis + 1:]) -> "
        "x.reshape(*x.shape[:axis], -2, CHUNK, *x.shape[axis + 1:])",
    ],
    "a special case for speed that the general form covers": [
        "minisum/fast/running.py cumsum: if n <= CHUNK: -> if True:",
        "minisum/fast/chunks.py split: if n != N * C: -> …",
        "minisum/ops/running.py sum_to: x.sum(axis=axes, keepdims=True) if axes else x -> "
        "x.sum(axis=axes, keepdims=True)",
        "minisum/fast/chunks.py back_decays: log_decay.shape[-1] == 1 -> log_decay.shape[-1] == 0",
        "minisum/fast/chunks.py back_decays: if log_decay.shape[-1] == 1: -> if False:",
        "minisum/fast/chunks.py back_decays: log_decay.shape -> db.shape (1)",
        "minisum/fast/chunks.py back_decays: db, through_state = "
        "(db.sum(-1, keepdims=True), through_state.sum(-1, keepdims=True)) -> pass",
        "minisum/ops/linear_attention.py kernel_attention.back: if clamp: -> if True:",
    ],
    "without a decay its gradient is computed for nothing, and not returned": [
        "minisum/ops/products.py causal_product.back: if log_decay is not None: -> if True:",
        "minisum/ops/delta.py delta_rule.back: if log_decay is not None: -> if True:",
    ],
    "chunks of any size give the same, and nobody reads what stands after the last token": [
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) -> math.isqrt(n - 0)",
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) -> math.isqrt(n)",
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) -> math.isqrt(n + 1)",
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) -> math.isqrt(d - 1)",
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) -> n - 1",
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) + 1 -> 1",
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) + 1 -> math.isqrt(n - 1)",
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) + 1 -> math.isqrt(n - 1) + 0",
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) + 1 -> math.isqrt(n - 1) + 2",
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) + 1 | 1 -> math.isqrt(n - 1) + 1",
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) + 1 | 1 -> 1",
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) + 1 | 1 -> math.isqrt(n - 1) + 1 | 0",
        "minisum/fast/scans.py _chunk: math.isqrt(n - 1) + 1 | 1 -> math.isqrt(n - 1) + 1 | 2",
    ],
    "zero at padding as it is: relu(0) has slope 0, w and its share are 0, Wβ met only zeros": [
        "minisum/mixers/cosformer.py CosFormer.mix.back: keep_real(back_wide_k(dwide_k), mask) -> "
        "back_wide_k(dwide_k)",
        "minisum/mixers/tssa.py TSSA.mix.back: keep_real(dw, mask) -> dw",
        "minisum/mixers/deltanet.py queries_keys_values.back: keep_real(dbeta, mask) -> dbeta",
    ],
    "broadcasts already, but for the product that a GPU records": [
        "minisum/models/in_context.py product: xp.broadcast_to(x, (*lead, *x.shape[-2:])) -> x",
    ],
    "NumPy's form of direct summation reads the mask row by row in any shape": [
        "minisum/models/long_document.py LongDocumentClassifier.features.read: "
        "mask[b, start:stop].reshape(-1, columns) -> mask[b, start:stop]",
    ],
    "a worker more than needed, whose gradients are zeros": [
        "minisum/models/long_document.py LongDocumentClassifier.features.back: "
        "len(owned) < threads -> len(owned) <= threads",
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
    "there on every system that the tests run on": [
        "minisum/files.py taken: getattr(os, 'O_NOFOLLOW', 0) -> getattr(os, 'O_NOFOLLOW', -1)",
        "minisum/files.py taken: getattr(os, 'O_NOFOLLOW', 0) -> getattr(os, 'O_NOFOLLOW', 1)",
    ],
    "the same numbers or the same JSON, written otherwise": [
        "data/fingerprint.py data_sha256: np.where(np.isnan(part), np.nan, part).astype('<f8') -> "
        "np.where(np.isnan(part), np.nan, part)",
        "data/sets/language.py split_running_text: int(starts[np.abs(starts - len(text) * "
        "(1 - fraction)).argmin()]) -> starts[…",
        "minisum/files.py write_json: json.dumps(content, indent=2, ensure_ascii=False, "
        "allow_nan=False) -> json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)",
        "minisum/files.py write_json: json.dumps(content, indent=2, ensure_ascii=False, "
        "allow_nan=False) -> json.dumps(content, indent=3, ensure_ascii=False, allow_nan=False)",
        "minisum/columns.py fill_gaps: scaled.shape -> places.shape",
        "minisum/columns.py column_statistics: deviation <= 1e-12 * np.abs(mean) -> "
        "deviation < 1e-12 * np.abs(mean)",
        "minisum/gradcheck.py _check_differences: float((gradient * scale * direction).sum()) -> "
        "(gradient * scale * direction).sum()",
        "train/icl/baselines.py mean_and_error: float(errors.std() / len(errors) ** 0.5) -> "
        "errors.std() / len(errors) ** 0.5",
        "train/page/laboratory.py Training.held_out: float(right.mean()) -> right.mean()",
    ],
    "runpy puts the module's file in this place": [
        "train/run/children.py run_module: [module, *arguments] -> [arguments, *arguments]",
    ],
    "how wide a line or how large a point is drawn": [
        "train/icl/figures.py loss_by_layers: markersize=3 -> markersize=2",
        "train/icl/figures.py loss_by_noise: ax.plot(levels, known[name]['profiles'][baseline], "
        "'k', lw=0.9, ls=dashes, label=baseline) -> ax.plot(levels, "
        "known[name]['profiles'][baseline], 'k', ls=dashes, label=baseline)",
    ],
    "a header of exactly the most that is read": [
        "minisum/checkpoint.py load: length > HEADER_BYTES -> length >= HEADER_BYTES",
    ],
    "a folder with files is not removed, and who waits for its lock notices that it is gone": [
        "minisum/files.py claimed: new and list(folder.iterdir()) == [path] -> new",
    ],
}

LINES = [line for lines in EQUIVALENT.values() for line in lines]
BEGINNINGS = tuple(line[:-1] for line in LINES if line.endswith("…"))


def changes_nothing(mutant):
    return mutant in LINES or mutant.startswith(BEGINNINGS)
