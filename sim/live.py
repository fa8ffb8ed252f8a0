"""Live calls to a model within a budget, and what they came to; the call itself is in `gridgov.gemini`."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from threading import Lock

from gridgov.cassette import Exchange
from gridgov.errors import ProposerFailed
from gridgov.prompt import Request
from gridgov.propose import Context

AskModel = Callable[[Request], Exchange]
"""Puts a request to a model, and never raises for what the model or the network does."""


class BudgetSpent(ProposerFailed):
    """No more may be asked of the model; what came so far is recorded."""


class Live:
    """Asks a model as long as the budget lasts. `calls` and `cost` (in the currency of the price table) are of now."""

    def __init__(self, ask: AskModel, *, max_calls: int | None = None, max_cost: Decimal | None = None) -> None:
        self._ask = ask
        self._max_calls, self._max_cost = max_calls, max_cost
        self._lock = Lock()
        self.calls = 0
        self.cost = Decimal(0)
        self._unpriced: str | None = None

    def __call__(self, request: Request, context: Context) -> Exchange:
        """One exchange. Raises BudgetSpent where the budget is spent: what came so far is recorded."""
        with self._lock:
            if self._max_calls is not None and self.calls >= self._max_calls:
                raise BudgetSpent(self._spent(context, f"{self.calls} calls, as many as --max-calls allows"))
            if self._max_cost is not None and self.cost >= self._max_cost:
                raise BudgetSpent(self._spent(context, f"{self.cost} spent of --max-cost {self._max_cost}"))
            if self._max_cost is not None and self._unpriced is not None:
                words = f"nothing says what {self._unpriced} costs, so --max-cost cannot hold"
                said = f"epoch {context.round.epoch}: {words}; name its price in GRIDGOV_PRICES, or use --max-calls"
                raise BudgetSpent(said)
            self.calls += 1
        exchange = self._ask(request)
        with self._lock:
            self.cost += Decimal(exchange.cost or 0)
            if exchange.cost is None and exchange.status == 200:
                self._unpriced = request.model
        return exchange

    @staticmethod
    def _spent(context: Context, words: str) -> str:
        return f"epoch {context.round.epoch}: the budget is spent ({words}); give it another, and it goes on from here"


def paced(ask: AskModel, rate: float, now: Callable[[], float], sleep: Callable[[float], None]) -> AskModel:
    """The same, at most `rate` times a minute, evenly: who comes too early waits. `now` and `sleep` are in seconds."""
    free = now()

    def asked(request: Request) -> Exchange:
        nonlocal free
        early = free - now()
        if early > 0:
            sleep(early)
        free = max(free, now()) + 60 / rate
        return ask(request)

    return asked
