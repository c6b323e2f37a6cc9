"""One cell of a comparison: a mixer trained from a seed, or one layer of it timed against n."""

import math
import time
from functools import partial

import numpy as np

from minisum import backend, machine, mixers
from minisum.optim import Adam, learning_rate
from minisum.params import Params
from minisum.shards import Shards
from train.bench.measure import peak_memory, timed
from train.loop import STEPS_BETWEEN_READS

WARM_UP = 3  # readings that the speed leaves out: caches, and kernels compiled on first use
TAIL = 0.1  # fraction of the steps, at the end, that the training loss is averaged over
SHORTEST = 64  # length of the scaling: 64, 128, 256, ...
REPEATS, PATIENCE = 7, 2.0  # passes timed, fewer (but 3) if they take more seconds than this
LONGEST_PASS = 10.0  # seconds; a mixer that took longer is not tried on longer texts


def train_cell(task, mixer, seed, report):
    """Train for config.steps steps, then score the test set once. A JSON-able dict.

    No step is selected, so no validation is needed. A run whose loss is no longer finite ends
    there, with `diverged_at` and no score.
    """
    config, model = task.config, task.model(mixer)
    xp = backend.get(config.backend)
    if xp is not np:
        xp.get_default_memory_pool().free_all_blocks()
    params = Params.from_arrays(model.init(np.random.default_rng([seed, 0])), xp=xp)
    grads = params.zeros_like()
    shards = Shards(model, threads=config.threads if xp is np else None)
    adam = Adam(params, workers=shards.workers, **config.pick("weight_decay", "clip_norm"))
    losses, unread, seconds, tokens = [], [], [], []
    started = time.perf_counter()
    with report.bar(f"{mixer}, seed {seed}", config.steps, 0) as advance:
        for step in range(1, config.steps + 1):
            batch = task.train_batch(seed, step)
            noise = model.noise(np.random.default_rng([seed, step, 1]), batch)
            rate = learning_rate(step - 1, config.steps, config.lr, config.warmup, config.schedule)
            on_device = shards.to_device(batch | noise, xp)
            if not unread:
                clock, read = time.perf_counter(), 0
            unread.append(shards.loss_and_grads(params, grads, on_device))
            adam.step(grads, rate)
            read += task.tokens(batch)
            if xp is np or len(unread) == STEPS_BETWEEN_READS or step == config.steps:
                backend.synchronize(xp)
                seconds.append(time.perf_counter() - clock)
                tokens.append(read)
                latest, unread = [float(loss) for loss in unread], []
                losses += latest
                if not all(map(math.isfinite, latest)):
                    break
            advance(losses[-1] if losses else None)
    skipped = WARM_UP if len(seconds) > 2 * WARM_UP else 0
    diverged = next((i for i, loss in enumerate(losses, 1) if not math.isfinite(loss)), None)
    finite = diverged is None and bool(xp.isfinite(params.vector).all())
    last = losses[-max(1, round(TAIL * len(losses))) :]
    # A replay allocates nothing.
    plain = shards if xp is np else Shards(model, record=False)
    step = partial(plain.loss_and_grads, params, grads, on_device)
    return {
        "mixer": mixer,
        "seed": seed,
        "steps": len(losses),
        **(test_scores(task, shards, params, xp) if finite else {task.metric: None}),
        "train_loss": float(np.mean(last)) if finite else None,
        "diverged_at": None if finite else diverged or len(losses),
        "parameters": params.count,
        "state_numbers": state_numbers(task, mixer),
        "tokens_per_second": sum(tokens[skipped:]) / sum(seconds[skipped:]),
        "step_memory_bytes": peak_memory(step, xp),
        "seconds": time.perf_counter() - started,
        "device": machine.device_name(xp),
        "versions": machine.versions(xp),
    }


def test_scores(task, shards, params, xp):
    return task.test_scores(
        lambda batch: backend.to_numpy(shards.predict(params, backend.to_device(batch, xp)))
    )


def state_numbers(task, mixer):
    """Numbers that the causal form of the layers carries from token to token, after all of them."""
    config = task.config
    if not mixers.TABLE[mixers.parse_name(mixer)[0]].can_be_causal:
        return None
    sizes = {"width": config.width, "heads": config.heads, "max_len": task.max_len}
    layer = mixers.build(mixer, causal=True, **sizes)
    return config.layers * layer.state_size(task.max_len)


def scale_cell(task, mixer, longest):
    """Seconds and memory of forward and backward of one layer, batch 1, for n up to `longest`.

    `slope` is that of the last two lengths in log-log: 1 is linear in n, 2 is quadratic.
    """
    config = task.config
    xp = backend.get(config.backend)
    causal = task.causal
    if causal is None:
        causal = not mixers.TABLE[mixers.parse_name(mixer)[0]].can_be_bidirectional
    sizes = {"width": config.width, "heads": config.heads, "max_len": longest}
    layer = mixers.build(mixer, causal=causal, **sizes)
    rng = np.random.default_rng(0)
    params = Params.from_arrays(layer.init(rng), xp)
    rows = []
    for n in (SHORTEST << k for k in range((longest // SHORTEST).bit_length())):
        x, dy = (xp.asarray(rng.normal(size=(1, n, config.width)), dtype="float32") for _ in "xy")

        def both_ways(x=x, dy=dy):
            _, back = layer(params, x)
            back(dy)

        seconds = median_seconds(both_ways, xp)
        rows.append({"n": n, "seconds": seconds, "memory_bytes": peak_memory(both_ways, xp)})
        if seconds > LONGEST_PASS:
            break
    return {"mixer": mixer, "causal": causal, "rows": rows, "slope": slope(rows)}


def median_seconds(work, xp):
    timed(work, xp)
    times = []
    while len(times) < 3 or (len(times) < REPEATS and sum(times) < PATIENCE):
        times.append(timed(work, xp))
    return float(np.median(times))


def slope(rows):
    if len(rows) < 2:
        return None
    (n0, t0), (n1, t1) = ((row["n"], row["seconds"]) for row in rows[-2:])
    return math.log(t1 / t0) / math.log(n1 / n0)
