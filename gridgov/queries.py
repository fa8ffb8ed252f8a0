"""The SQL of `sql/postgres` by name, and how it is asked: what this project wants of a session, and no driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

SQL = Path(__file__).parent / "sql" / "postgres"

PAGE = 5_000
"""Rows that are fetched at once."""


class Cursor(Protocol):
    """Rows on their way."""

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next one."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All that are left."""

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """All that are left, one by one."""

    @property
    def description(self) -> Any:
        """What the columns are called."""


class Session(Protocol):
    """A session in a grid's schema, as `postgres.connect` gives it."""

    @property
    def closed(self) -> bool:
        """Whether it is over."""

    def execute(self, query: str, params: Any = None, /) -> Cursor:
        """Asks one question."""

    def cursor(self) -> Any:
        """The driver's own way to ask, for what it does at once."""

    def transaction(self) -> AbstractContextManager[Any]:
        """All within counts, or nothing."""


@cache
def _queries() -> dict[str, str]:
    _, *parts = (SQL / "queries.sql").read_text("utf-8").split("-- name: ")
    return {name: text.strip() for name, _, text in (part.partition("\n") for part in parts)}


def query(name: str) -> str:
    """The SQL of a query by its name."""
    return _queries()[name]


@cache
def migrations() -> dict[str, str]:
    """The migrations by name, in order."""
    return {path.stem: path.read_text("utf-8") for path in sorted(SQL.glob("[0-9]*.sql"))}


@contextmanager
def snapshot(session: Session) -> Iterator[None]:
    """All reads within see one moment."""
    session.execute(query("snapshot"))
    try:
        yield
    finally:
        if not session.closed:
            session.execute(query("rollback"))
