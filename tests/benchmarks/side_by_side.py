"""Measures two things in turn and prints the ratio of their medians; no benchmark lives here."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median


def seconds(work: Callable[[], object]) -> float:
    """The time of one call, after a collection and, as `timeit` does it, with none in between."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    finally:
        gc.enable()


def compare(name: str, ours: Callable[[], object], reference: Callable[[], object], *, times: int = 7) -> float:
    """Runs A B A B ... after one warm-up of each; prints both medians and the ratio, which it returns."""
    ours()
    reference()
    pairs = [(seconds(ours), seconds(reference)) for _ in range(times)]
    a, b = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    ratio = median(pair[0] / pair[1] for pair in pairs)
    print(f"\n{name}: {1000 * a:,.1f} ms, reference {1000 * b:,.1f} ms, ratio {ratio:.2f} (median of {times} pairs)")
    return ratio
