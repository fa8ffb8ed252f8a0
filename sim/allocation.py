"""What proposals made at once are granted where together they ask for more than there is; nothing is judged here.

GovSim's fishery rations like this: asks are scaled, not refused. What is granted is then judged like any proposal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gridgov.model import Code, Proposal
from gridgov.state import State, drawdown
from gridgov.validate import validate

RATIONED = {Code.INSUFFICIENT_BALANCE, Code.MIN_BALANCE}
"""The rules that an ask may break by itself and still count: there is not enough, and that is what is shared."""


class Grant(NamedTuple):
    """A proposal with what it is granted; `asked` is None where that is what it asked."""

    proposal: Proposal
    asked: Proposal | None


class _Ask(NamedTuple):
    proposal: int
    transfer: int
    amount: int


Share = Callable[[Sequence[str], Sequence[int], int], list[int]]
"""(who asks, how much each, what is there: less than their sum) -> what each is granted, in minor units."""


def proportional(who: Sequence[str], asks: Sequence[int], there: int) -> list[int]:
    """Scales the asks to what is there, by largest remainder; ties go to whoever comes first."""
    total = sum(asks)
    shares = [ask * there // total for ask in asks]
    remainders = [(-(ask * there % total), i) for i, ask in enumerate(asks)]
    for _, i in sorted(remainders)[: there - sum(shares)]:
        shares[i] += 1
    return shares


def served(rank: Callable[[str], int]) -> Share:
    """Serves the asks in order of their proposers' rank, each in full until nothing is left."""

    def share(who: Sequence[str], asks: Sequence[int], there: int) -> list[int]:
        shares = [0] * len(asks)
        for i in sorted(range(len(asks)), key=lambda i: rank(who[i])):
            shares[i] = min(asks[i], there)
            there -= shares[i]
        return shares

    return share


def allocate(state: State, proposals: Sequence[Proposal], share: Share) -> list[Grant]:
    """Grants proposals that were made on the same state: all that is asked where there is enough, else shares.

    Proposals that break another rule by themselves are left as they are (to be refused) and don't count. What is shared
    of an actor's resource is what it has available less its minimum.
    """
    standing = [i for i, proposal in enumerate(proposals) if _counts(state, proposal)]
    asks: dict[tuple[str, str], list[_Ask]] = {}
    drawn: dict[tuple[str, str], int] = {}
    for i in standing:
        for j, (actor, _, resource, amount) in enumerate(proposals[i].transfers):
            assert isinstance(amount, int)
            asks.setdefault((actor, resource), []).append(_Ask(i, j, amount))
        for key, amount in drawdown(proposals[i].transfers).items():
            drawn[key] = drawn.get(key, 0) + amount
    granted = [list(proposal.transfers) for proposal in proposals]
    for key, total in drawn.items():
        there = _there(state, *key)
        if total <= there:
            continue
        who = [proposals[ask.proposal].proposer for ask in asks[key]]
        shares = share(who, [ask.amount for ask in asks[key]], there)
        for ask, amount in zip(asks[key], shares, strict=True):
            transfers = granted[ask.proposal]
            transfers[ask.transfer] = transfers[ask.transfer]._replace(amount=amount)
    return [_grant(p, p._replace(transfers=tuple(g))) for p, g in zip(proposals, granted, strict=True)]


def _grant(asked: Proposal, granted: Proposal) -> Grant:
    return Grant(granted, None if asked == granted else asked)


def _counts(state: State, proposal: Proposal) -> bool:
    violations = validate(state, state.constraints, proposal).violations
    return bool(proposal.transfers) and all(violation.code in RATIONED for violation in violations)


def _there(state: State, actor: str, resource: str) -> int:
    least = state.constraints.min_balance.of(actor, resource) if state.constraints.min_balance else 0
    return max(0, state.available(actor, resource) - (least or 0))
