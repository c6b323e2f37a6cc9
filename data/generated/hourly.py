"""The default series: hourly values of known structure, so that it is known what can be learned.

With t in hours, day = 2πt/24, week = 2πt/168 and independent standard normal noise:

    load     10 + 0.0004 t + 3 sin(day) + sin(2 day) + 2 sin(week) + 0.8 a_t
    heat     20 - 0.0006 t + 0.7 (load_{t-6} - 10) + 2 cos(week) + 0.5 noise     coupled to load
    sales     5 + (2 + cos(week)) max(0, sin(day + 1)) + 0.4 noise     a season that swells
    drift    a random walk with steps of 0.1 noise: nothing beats its last value

and a_t = 0.9 a_{t-1} + 0.44 noise, which can be known for some hours ahead and no further.
"""

import datetime

import numpy as np

COLUMNS = ("load", "heat", "sales", "drift")


def load(steps=5000) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """(COLUMNS, values (steps, 4) float64, times as ISO strings), always the same."""
    rng = np.random.default_rng(20240501)
    t = np.arange(-6, steps, dtype=np.float64)
    day, week = 2 * np.pi * t / 24, 2 * np.pi * t / 168
    noise = rng.normal(size=(4, len(t)))
    a = np.zeros(len(t))
    for i in range(1, len(t)):
        a[i] = 0.9 * a[i - 1] + 0.44 * noise[0, i]
    load = 10 + 0.0004 * t + 3 * np.sin(day) + np.sin(2 * day) + 2 * np.sin(week) + 0.8 * a
    heat = 20 - 0.0006 * t[6:] + 0.7 * (load[:-6] - 10) + 2 * np.cos(week[6:]) + 0.5 * noise[1, 6:]
    sales = 5 + (2 + np.cos(week)) * np.maximum(0, np.sin(day + 1)) + 0.4 * noise[2]
    drift = np.cumsum(0.1 * noise[3])
    start = datetime.datetime(2024, 1, 1)
    times = [(start + datetime.timedelta(hours=i)).isoformat(" ") for i in range(steps)]
    return COLUMNS, np.stack([load[6:], heat, sales[6:], drift[6:]], axis=1), times
