"""What a few figures allow to say: tests, corrections and curves beside those of `paired`, on bare figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import sqrt
from typing import NamedTuple

from sim.paired import LEVEL, RESAMPLES, SEED

POWER = 0.8
"""The chance with which the smallest effect would have shown."""

EXACT_MAX = 13
"""Up to so many pairs, the permutation test counts every way in which they could be swapped."""

_SAMPLES = 2_000


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


def spread(values: Sequence[float]) -> float:
    """The standard deviation of at least two values, as an estimate from a sample."""
    mean = sum(values) / len(values)
    return sqrt(sum((one - mean) ** 2 for one in values) / (len(values) - 1))


def detectable(deviation: float, n: int, tests: int = 1) -> float | None:
    """The smallest mean difference that n pairs would have shown with a chance of POWER, as one of so many tests.

    `deviation` is the standard deviation of their differences. None where not even the largest would have been
    decisive: six pairs that all go one way come by chance in 1 of 32 comparisons, which is too often for two tests.
    """
    times = _effect(n, (1 - LEVEL) / tests)
    return None if times is None else times * deviation


@lru_cache(maxsize=256)
def _effect(n: int, level: float) -> float | None:
    """The smallest difference, in standard deviations, that is found at a level with a chance of POWER.

    Up to EXACT_MAX pairs by the permutation test itself, on normal differences: with a shift d, pairs that are swapped
    come to at least what was seen where d is no more than the negative of their mean without it, so that of each sample
    the least d that shows is known. Beyond, (t_(n-1, 1 - level / 2) + t_(n-1, POWER)) / sqrt(n): Bloom, Minimum
    detectable effects, Evaluation Review 19 (1995).
    """
    from scipy.stats import t

    if n > EXACT_MAX:
        if level < 2 / (RESAMPLES + 1):
            return None
        return float((t.ppf(1 - level / 2, n - 1) + t.ppf(POWER, n - 1)) / sqrt(n))
    extreme = int(level / 2 * 2**n + 1e-9)
    if not extreme:
        return None
    import numpy as np

    swapped = (np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1
    means = swapped / swapped.sum(axis=1, keepdims=True)
    samples = np.random.default_rng(SEED).standard_normal((_SAMPLES, n))
    least = [np.partition(means @ sample, extreme - 1)[extreme - 1] for sample in samples]
    return float(np.quantile(-np.array(least), POWER))


class Curve(NamedTuple):
    """A share that survives, by epoch: from `epochs[i]` on it is `shares[i]`, and 1 before. `runs` are behind it.

    `until` is the last epoch that any of them came to.
    """

    epochs: tuple[int, ...]
    shares: tuple[float, ...]
    runs: int
    collapsed: int
    until: int


def survival(times: Sequence[int], collapsed: Sequence[bool]) -> Curve:
    """The survival curve of runs that collapsed in an epoch, or were still there when it ended.

    Kaplan and Meier, JASA 53 (1958), by SciPy's ecdf: those that did not collapse are censored on the right.
    """
    from scipy import stats

    uncensored = [time for time, gone in zip(times, collapsed, strict=True) if gone]
    right = [time for time, gone in zip(times, collapsed, strict=True) if not gone]
    if not uncensored:  # nothing ends, and SciPy wants an end
        return Curve((), (), len(times), 0, max(times))
    found = stats.ecdf(stats.CensoredData(uncensored=uncensored, right=right)).sf
    steps = [(int(q), float(p)) for q, p in zip(found.quantiles, found.probabilities, strict=True) if q in uncensored]
    return Curve(tuple(q for q, _ in steps), tuple(p for _, p in steps), len(times), len(uncensored), max(times))
