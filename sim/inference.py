"""What a few figures allow to say: tests, corrections and curves beside those of `paired`, on bare figures."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from sim.paired import LEVEL, PAIRS_MIN, RESAMPLES, SEED

POWER = 0.8
"""The chance with which the smallest effect would have shown."""


def alike(values: Sequence[float]) -> bool:
    """Whether figures differ by no more than the last digits of a float."""
    low, high = min(values), max(values)
    return high - low <= 1e-12 * max(abs(low), abs(high))


def sign_flip(differences: Sequence[float]) -> float:
    """The two-sided p that a mean this far from 0 comes of pairs whose sides could be swapped.

    The paired permutation test (Fisher, The Design of Experiments, 1935, section 21), by SciPy: exact up to 13 pairs,
    beyond that by RESAMPLES drawn swaps, counting the one that was seen.
    """
    import numpy as np
    from scipy import stats

    found = stats.permutation_test(
        (np.array(differences), np.zeros(len(differences))),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(SEED),
    )
    return float(found.pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """The p of each of several tests, corrected so that the chance of any false finding among them keeps its level.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979): the
    k-th smallest of m is multiplied by m - k + 1, and none is below one that was smaller.
    """
    found, most = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        most = max(most, min(1.0, (len(values) - rank) * values[place]))
        found[place] = most
    return found


def detectable(differences: Sequence[float]) -> float | None:
    """The smallest mean difference that so many pairs of this spread would have shown with a chance of POWER.

    (t_(n-1, (1 + LEVEL) / 2) + t_(n-1, POWER)) s / sqrt(n): Bloom, Minimum detectable effects, Evaluation Review 19
    (1995). Before any correction for several metrics. None below PAIRS_MIN, or where nothing varies.
    """
    n = len(differences)
    if n < PAIRS_MIN or alike(differences):
        return None
    from scipy.stats import t

    mean = sum(differences) / n
    spread = sqrt(sum((one - mean) ** 2 for one in differences) / (n - 1))
    return float((t.ppf((1 + LEVEL) / 2, n - 1) + t.ppf(POWER, n - 1)) * spread / sqrt(n))


class Curve(NamedTuple):
    """A share that survives, by epoch: from `epochs[i]` on it is `shares[i]`, and 1 before. `runs` are behind it."""

    epochs: tuple[int, ...]
    shares: tuple[float, ...]
    runs: int
    collapsed: int


def survival(times: Sequence[int], collapsed: Sequence[bool]) -> Curve:
    """The survival curve of runs that collapsed in an epoch, or were still there when it ended.

    Kaplan and Meier, JASA 53 (1958), by SciPy's ecdf: those that did not collapse are censored on the right.
    """
    from scipy import stats

    uncensored = [time for time, gone in zip(times, collapsed, strict=True) if gone]
    right = [time for time, gone in zip(times, collapsed, strict=True) if not gone]
    if not uncensored:  # nothing ends, and SciPy wants an end
        return Curve((), (), len(times), 0)
    found = stats.ecdf(stats.CensoredData(uncensored=uncensored, right=right)).sf
    steps = [(int(q), float(p)) for q, p in zip(found.quantiles, found.probabilities, strict=True) if q in uncensored]
    return Curve(tuple(q for q, _ in steps), tuple(p for _, p in steps), len(times), len(uncensored))
