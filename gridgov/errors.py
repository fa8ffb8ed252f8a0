"""The exceptions of the project, and what each means to a shell; nothing else lives here.

    GridgovError               exit code
    ├── BadInput                   2   what someone wrote is wrong: says what, where, what to do
    │   ├── Conflict               2   the same id was used before, with other input
    │   └── Misplaced              2   the database is not as this version needs it
    ├── Damaged                    1   a file or a ledger is not what it was when it was written
    ├── CheckFailed                1   an expectation, a comparison or a check did not hold
    ├── Unreachable                3   the database gave no answer
    └── ProposerFailed             3   a proposer or a service gave no answer
        └── CassetteMiss           3   a recording has no answer to what was asked

A rule that a proposal breaks is no exception but a recorded value: see `model.Violation`.
"""

from __future__ import annotations


class GridgovError(Exception):
    """Something failed; the message is one line for a person."""

    exit_code = 2


class BadInput(GridgovError):
    """What someone wrote is wrong: the message says what, where and what to do.

    `path` leads to the place in a document (keys and indexes), for whoever can turn it into a file and a line.
    """

    exit_code = 2

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class Conflict(BadInput):
    """This id was used before, with other input; the outcome that was recorded stands."""


class Misplaced(BadInput):
    """The database is not as this version needs it: not migrated, without the roles, or without their rights."""


class Damaged(GridgovError):
    """A file or a ledger is not what it was when it was written."""

    exit_code = 1


class CheckFailed(GridgovError):
    """An expectation, a comparison or a check did not hold."""

    exit_code = 1


class Unreachable(GridgovError):
    """The database gave no answer; the message says whether what was asked for may have been recorded."""

    exit_code = 3


class ProposerFailed(GridgovError):
    """A proposer or a service gave no answer, and the run was told to stop at that."""

    exit_code = 3


class CassetteMiss(ProposerFailed):
    """The cassette has no recorded reply to this request; `cause` and `diff` say why."""

    def __init__(self, message: str, *, cause: str, diff: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.diff = diff
