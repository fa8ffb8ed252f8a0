"""The meters of a scenario's homes: what each epoch's flows come to, as readings for `POST /v1/flows`; nothing is sent.

In production meters say what was consumed once it was. So the readings of an epoch hold the consumption of the epoch
before, and the production and the needs of this one. Nothing spills: a production grid knows no `storage`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from gridgov.amounts import to_json
from gridgov.flows import Request
from gridgov.model import Kind
from gridgov.state import State
from sim.world import World

Json = dict[str, Any]


class Meters:
    """Readings for any epoch: the scenario's rows from its epoch `first` on, over and over."""

    def __init__(self, world: World, first: int = 1) -> None:
        assert 1 <= first <= world.scenario.epochs, "a scenario's epochs run from 1"
        self._world, self._first = world, first
        self._scales = {resource.name: resource.scale for resource in world.scenario.resources}

    def row(self, epoch: int) -> int:
        """The scenario's epoch that stands for this one."""
        return (self._first - 1 + epoch - 1) % self._world.scenario.epochs + 1

    def reading(self, epoch: int) -> Json:
        """The body of `POST /v1/flows` for an epoch; its `reading_id` is the same whenever it is asked for."""
        shown = self._shown("produce", epoch) + self._shown("need", epoch)
        if epoch > 1:
            shown += self._shown("consume", epoch - 1)
        return {"reading_id": f"{self._world.scenario.name}/{epoch}", "epoch": epoch, "readings": shown}

    def _shown(self, kind: str, epoch: int) -> list[Json]:
        """What is read of each actor and resource; what several flows come to is one reading."""
        amounts: Counter[tuple[str, str]] = Counter()
        for flow in self._world.of(Kind.CONSUME if kind == "need" else Kind(kind)):
            for actor, resource, amount in self._requests(flow, epoch):
                amounts[actor, resource] += amount
        return [
            {"actor": actor, "resource": name, "kind": kind, "amount": to_json(amount, self._scales[name])}
            for (actor, name), amount in amounts.items()
        ]

    def _requests(self, flow: Any, epoch: int) -> list[Request]:
        found: list[Request] = flow.requests(self.row(epoch), State())
        return found
