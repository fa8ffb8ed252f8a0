"""How well a scenario could be served: alone, and at best with perfect foresight; it decides and appends nothing.

The programme itself is in `optimal`; here a scenario is put to it, and its answer becomes transfers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gridgov.errors import BadInput
from gridgov.model import Constraints, Limit, Transfer
from sim import optimal
from sim.scenario import Since
from sim.world import World

LINEAR, MIXED = 20_000, 600
"""Actors x epochs that are solved without being asked for; the second where some minimum is above 0."""


class Baseline(NamedTuple):
    """Served demand of one resource in minor units: without any proposal, and at best; None with the reason why not.

    `alone` is that of each actor that needs it, without any proposal.
    """

    none: int | None
    bound: int | None
    note: str
    alone: tuple[tuple[str, int], ...] = ()


def demanded(world: World) -> list[str]:
    """The resources that somebody needs."""
    needed = {series.flow.resource for series in world.of("consume")}
    return [resource.name for resource in world.scenario.resources if resource.name in needed]


def baselines(world: World, *, at_any_cost: bool = False) -> dict[str, Baseline]:
    """The two baselines of every resource that somebody needs.

    A programme that takes more than a few seconds is solved `at_any_cost` only; else the note says so.
    """
    return {resource: _baseline(world, resource, at_any_cost) for resource in demanded(world)}


def _baseline(world: World, resource: str, at_any_cost: bool) -> Baseline:
    if any(series.flow.resource == resource for series in world.of("grow")):
        return Baseline(None, None, f"{resource} grows with its balance, which is not linear")
    problem = problem_of(world, resource)
    served = optimal.forward(problem, np.zeros_like(problem.demanded), np.zeros_like(problem.demanded))
    none, each, needed = int(served.sum()), served.sum(axis=0), np.flatnonzero(problem.demanded.sum(axis=0))
    alone = tuple((world.scenario.actors[i].id, int(each[i])) for i in needed.tolist())
    reason = nonlinear(world, resource)
    if reason is None and not at_any_cost and optimal.size(problem) > (MIXED if problem.minimum.any() else LINEAR):
        reason = f"its programme of {optimal.size(problem):,} actors x epochs takes a while; --bound solves it"
    if reason is not None:
        return Baseline(none, None, reason, alone)
    try:
        return Baseline(none, optimal.solve(problem).served_total, "", alone)
    except optimal.Unsolvable as error:
        return Baseline(none, None, str(error), alone)


def nonlinear(world: World, resource: str, after: int = 0) -> str | None:
    """Why there is no linear programme for this resource and the epochs after this one, or None."""
    scenario = world.scenario
    if any(series.flow.resource == resource for series in world.of("grow")):
        return f"{resource} grows with its balance"
    if scenario.commons is not None and scenario.commons.resource == resource:
        return f"{resource} is a commons that may collapse"
    for constraints in {id(c): c for c in map(world.constraints, range(after + 1, scenario.epochs + 1))}.values():
        if constraints.hold_above is not None and _binds(constraints.hold_above, resource):
            return "transfers above hold_above wait for approval"
        if constraints.max_transfers_per_proposal is not None:
            return "max_transfers_per_proposal counts transfers"
        if constraints.auto_pause is not None:
            return "auto_pause may stop the proposals"
    return None


def _binds(limit: Limit, resource: str) -> bool:
    return resource in limit.by_resource or any(resource in own for own in limit.by_actor.values())


def problem_of(world: World, resource: str, since: Since | None = None) -> optimal.Problem:
    """The scenario as arrays, in the order of its actors: all of it, or its epochs since a state that it came to."""
    scenario = world.scenario
    names = [actor.id for actor in scenario.actors]
    place = {name: i for i, name in enumerate(names)}
    shape = (scenario.epochs, len(names))
    flows = {kind: np.zeros(shape, np.int64) for kind in ("produce", "consume")}
    for kind, total in flows.items():
        for series in world.of(kind):
            if series.flow.resource == resource:
                assert series.amounts is not None
                for i, actor in enumerate(series.flow.actors):
                    total[:, place[actor]] += series.amounts[:, i]
    opening = np.zeros(len(names), np.int64)
    held = {(a, of): amount for a, of, amount in scenario.opening} if since is None else since.balances
    for (actor, of), amount in held.items():
        if of == resource and actor in place:
            opening[place[actor]] = amount
    minimum, quota = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    previous = None
    for t in range(scenario.epochs):
        constraints = world.constraints(t + 1)
        if constraints is previous:
            minimum[t], quota[t] = minimum[t - 1], quota[t - 1]
            continue
        previous = constraints
        for i, name in enumerate(names):
            minimum[t, i], quota[t, i] = _limits(constraints, name, resource)
    storage = np.array([scenario.storage.get((name, resource), -1) for name in names], np.int64)
    first = 0 if since is None else since.epoch
    produced, consumed, minimum, quota = (rows[first:] for rows in (flows["produce"], flows["consume"], minimum, quota))
    return optimal.Problem(opening, produced, consumed, minimum, quota, storage)


def _limits(constraints: Constraints, actor: str, resource: str) -> tuple[int, int]:
    """Minimum and quota; a max_transfer only binds at 0, because what is above it can be split."""
    least = (constraints.min_balance.of(actor, resource) or 0) if constraints.min_balance else 0
    most = constraints.epoch_quota.of(actor, resource) if constraints.epoch_quota else None
    if constraints.max_transfer is not None and constraints.max_transfer.of(actor, resource) == 0:
        most = 0
    return least, -1 if most is None else most


def plan(world: World) -> dict[int, tuple[Transfer, ...]]:
    """The transfers of `optimal`, by epoch: from the beginning, or since the scenario says.

    Raises BadInput, with the reason, where there is no such plan.
    """
    names, since = [actor.id for actor in world.scenario.actors], world.scenario.since
    before = 0 if since is None else since.epoch
    planned: dict[int, list[Transfer]] = {}
    for resource in demanded(world):
        reason = (since and since.hindered) or nonlinear(world, resource, before)
        if reason:
            raise BadInput(f"policy optimal has no plan for {resource}: {reason}; choose another policy")
        problem = problem_of(world, resource, since)
        try:
            found = optimal.solve(problem)
        except optimal.Unsolvable as error:
            raise BadInput(f"policy optimal has no plan for {resource}: {error}; choose another policy") from None
        for t in np.flatnonzero(found.sent.any(axis=1)).tolist():
            epoch = before + t + 1
            constraints = world.constraints(epoch)
            limits = [_max_transfer(constraints, name, resource) for name in names]
            for i, j, amount in optimal.transfers(found.sent[t], found.received[t], np.array(limits)):
                planned.setdefault(epoch, []).append(Transfer(names[i], names[j], resource, int(amount)))
    return {epoch: tuple(transfers) for epoch, transfers in planned.items()}


def _max_transfer(constraints: Constraints, actor: str, resource: str) -> int:
    most = constraints.max_transfer.of(actor, resource) if constraints.max_transfer is not None else None
    return -1 if most is None else most
