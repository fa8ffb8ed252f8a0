"""Numbers drawn by chance, each from its own key, so that no decision ever shifts another's numbers; nothing else.

A draw depends on (seed, epoch, actor, purpose) alone: not on how many draws came before, the process or the machine.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from statistics import NormalDist

_NORMAL = NormalDist()


def draw(seed: int, epoch: int, actor: str, purpose: str) -> int:
    """512 uniform bits; take uniform choices off it with `divmod(bits, how_many)`."""
    key = f"gridgov/draw/1\n{seed}\n{epoch}\n{actor}\n{purpose}"
    return int.from_bytes(hashlib.sha512(key.encode()).digest(), "big")


def uniform(bits: int) -> Fraction:
    """A number in (0, 1) with 53 bits."""
    return Fraction(2 * (bits >> 459) + 1, 2**54)


def normal(bits: int) -> Fraction:
    """A standard normal number, by the inverse of its distribution function."""
    return Fraction(_NORMAL.inv_cdf(float(uniform(bits))))


def shuffled(names: list[str], seed: int, epoch: int, purpose: str) -> list[str]:
    """The names in a drawn order; each name's place depends on its own draw alone."""
    return sorted(names, key=lambda name: draw(seed, epoch, name, purpose))
