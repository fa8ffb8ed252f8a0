"""What a scenario makes happen by itself: flows, needs, prices, constraints of each epoch; decisions play no part here.

Everything but growth is known before the first decision, so that no decision can shift it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from gridgov.amounts import LIMIT, round_half_even
from gridgov.errors import BadInput
from gridgov.flows import Request
from gridgov.model import Constraints
from gridgov.state import State
from sim.draws import draw, normal, uniform
from sim.scenario import Flow, Noise, Scenario

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Series:
    """A flow with all its amounts. `amounts` has shape (epochs, actors), minor units; None for growth."""

    flow: Flow
    amounts: Ints | None

    def requests(self, epoch: int, state: State) -> list[Request]:
        """What is requested of each actor in this epoch; who has nothing to do is left out."""
        if self.amounts is None:
            return list(self._growth(epoch, state))
        resource, row = self.flow.resource, self.amounts[epoch - 1].tolist()
        return [Request(actor, resource, amount) for actor, amount in zip(self.flow.actors, row, strict=True) if amount]

    def _growth(self, epoch: int, state: State) -> Iterator[Request]:
        """What each balance grows by: factor - 1 of itself, rounded once, half to even, up to the cap."""
        flow = self.flow
        if not flow.active(epoch) or flow.factor is None:
            return
        for actor in flow.actors:
            balance = state.balance(actor, flow.resource)
            grown = round_half_even(balance * flow.factor)
            target = grown if flow.cap is None else min(flow.cap, grown)
            if target > balance:
                yield Request(actor, flow.resource, target - balance)


class World:
    """The flows of a scenario, ready to be asked for; `prices` has 1e-6 currency per unit for each epoch."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.series = [_series(scenario, flow) for flow in scenario.flows]
        self.prices = scenario.price_series()

    def of(self, *kinds: str) -> Iterator[Series]:
        """The flows of these kinds, in the scenario's order."""
        return (series for series in self.series if series.flow.kind in kinds)

    def constraints(self, epoch: int) -> Constraints:
        """The constraints in force in this epoch."""
        return self.scenario.constraints_at(epoch)


def _series(scenario: Scenario, flow: Flow) -> Series:
    if flow.kind == "grow":
        return Series(flow, None)
    if flow.profile is not None:
        amounts = np.stack(scenario.flow_series(flow.name), axis=1)
    else:
        amounts = np.full((scenario.epochs, len(flow.actors)), flow.amount, np.int64)
    for epoch in range(1, scenario.epochs + 1):
        row = amounts[epoch - 1]
        if not flow.active(epoch):
            row[:] = 0
            continue
        by = scenario.scale_at(flow.name, epoch)
        if by != 1 or flow.noise is not None:
            row[:] = _generated(scenario, flow, epoch, row.tolist(), by)
    return Series(flow, amounts)


def _generated(scenario: Scenario, flow: Flow, epoch: int, row: list[int], by: Fraction) -> list[int]:
    """Scaled, with noise, each amount rounded once, half to even, and never below 0."""
    found = []
    for actor, amount in zip(flow.actors, row, strict=True):
        exact = amount * by
        if flow.noise is not None:
            exact += _drawn(flow.noise, draw(scenario.seed, epoch, actor, f"noise/{flow.name}"))
        generated = max(0, round_half_even(exact))
        if generated >= LIMIT:
            raise BadInput(
                f"flow {flow.name}, epoch {epoch}, {actor}: the amount is beyond 15 digits; scale it by less"
            )
        found.append(generated)
    return found


def _drawn(noise: Noise, bits: int) -> Fraction:
    """The noise of one amount, in minor units, exact."""
    drawn = normal(bits) if noise.kind == "normal" else 2 * uniform(bits) - 1
    return drawn * noise.width
