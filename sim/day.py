"""A day of production in minutes: `python -m sim.day`. Real n8n, app and Postgres, stubs of the rest, and faults.

Each loop plays the meters of an epoch, calls n8n's webhook as its schedule would, and sees what comes of it. Faults are
drawn from a seed. At the end every outcome must have its one issue, the ledger must verify, and what was exported must
come to the same state offline, from the models' replies alone.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGKILL
from typing import Any, NamedTuple

import click
import httpx

from gridgov import api, n8n, settings
from gridgov.auth import Keys
from gridgov.cassette import Interaction, read
from gridgov.embedded import temporary
from gridgov.engine import Engine
from gridgov.errors import CheckFailed, GridgovError
from gridgov.grid_export import export_grid
from gridgov.journal import Decision
from gridgov.ledger import MemoryLedger
from gridgov.loop import MORNING, signed
from gridgov.model import Proposal, Seen
from gridgov.operations import begin, clock, genesis
from gridgov.postgres import migrate
from gridgov.propose import Answer
from gridgov.serving import served
from gridgov.source import open_source
from gridgov.tapes import export_cassette
from gridgov.verify import verify
from sim.draws import draw, uniform
from sim.loading import load
from sim.meters import Meters
from sim.stubs.gemini import Step
from sim.stubs.gemini import Stub as GeminiStub
from sim.stubs.linear import Fault
from sim.stubs.linear import Stub as LinearStub
from sim.world import World

Json = dict[str, Any]
Say = Callable[[str], None]

SCENARIO = Path(__file__).parent.parent / "scenarios" / "community-week.yaml"
GRID = "main"
KEY = "lin_api_day"

GEMINI = (("503", 0.05), ("429", 0.04), ("truncated", 0.02), ("code fence", 0.03), ("finished for SAFETY", 0.02))
"""How often, of the requests to Gemini, the stub answers otherwise than well."""

LINEAR = (
    ("503", 0.03), ("503 html", 0.02), ("429", 0.02), ("ratelimited", 0.02), ("errors", 0.02), ("dropped before", 0.02),
    ("dropped after", 0.03), ("503 after", 0.03),
)  # fmt: skip
"""The same of Linear; in the last two the issue is there, and nobody was told."""

TRIES = 4
"""How often n8n asks Gemini before it reports that there is no answer."""

DELIVERED_TWICE = 0.2
"""How often meters send a reading twice."""

WAIT_S = 180.0


class Report(NamedTuple):
    """What came of a day. `issues` are those of outcomes, `incidents` all others."""

    loops: int
    outcomes: dict[str, int]
    issues: int
    incidents: int
    faults: dict[str, int]
    calls_again: int
    verified: int
    replayed: int
    head_digest: str


def gemini_script(seed: int, requests: int) -> list[Step]:
    """What each request to Gemini gets, drawn from the seed; once it is away for as long as n8n tries."""
    found = [Step(_drawn(GEMINI, seed, n, "gemini") or "good") for n in range(requests)]
    away = requests // 12
    return [*found[:away], *[Step("503")] * TRIES, *found[away:]]


def _drawn(faults: tuple[tuple[str, float], ...], seed: int, n: int, purpose: str) -> str | None:
    left = float(uniform(draw(seed, n, "", f"fault/{purpose}")))
    for name, chance in faults:
        if left < chance:
            return name
        left -= chance
    return None


Prepare = Callable[[n8n.Target, Path], None]
"""Fills an n8n user folder for a target."""


@contextmanager
def standing(prefix: Path, place: Path, seed: int = 1, prepare: Prepare | None = None) -> Iterator[Day]:
    """Everything of a day but the loops, up and well. `place` is a folder of the day's own; `seed` is of the faults.

    `prepare` stands in place of `n8n.prepare`.
    """
    with ExitStack() as parts:
        database = parts.enter_context(temporary())
        migrate(database.url, GRID)
        begin(database.url, GRID, genesis(SCENARIO, clock()), clock())
        keys = Keys(database.url, GRID)
        parts.callback(keys.close)
        gemini = parts.enter_context(GeminiStub(policy="hasty"))
        linear = parts.enter_context(LinearStub(key=KEY, seed=seed))
        address = parts.enter_context(served(api.create(database.url, GRID, "http://grid.example")))
        target = n8n.Target(
            address, keys.create("n8n", ["propose"], clock()), secrets.token_urlsafe(16), secrets.token_urlsafe(16),
            "gemini-day", KEY, linear.team, gemini_base_url=gemini.url, linear_url=linear.url,
            every_minutes=1380, sync_minutes=1380,
        )  # fmt: skip
        home = place / "n8n"
        if prepare is None:
            n8n.prepare(home, target, prefix)
        else:
            prepare(target, home)
        may_operate = {"Authorization": f"Bearer {keys.create('operator', ['operate'], clock())}"}
        operator = parts.enter_context(httpx.Client(base_url=address, timeout=60, headers=may_operate))
        day = Day(database.url, target, operator, gemini, linear, prefix, home, seed)
        parts.callback(lambda: n8n.stop(day.server))
        n8n.wait_for(day.server, n8n.WEBHOOKS)
        yield day


class Day:
    """The loops, against parts that run. `looped` counts them, `again` the calls that had to be made again."""

    def __init__(
        self, url: str, target: n8n.Target, operator: httpx.Client, gemini: GeminiStub, linear: LinearStub,
        prefix: Path, home: Path, seed: int,
    ) -> None:  # fmt: skip
        self.url, self.target, self.operator = url, target, operator
        self.gemini, self.linear, self.prefix, self.seed = gemini, linear, prefix, seed
        self.server = n8n.start(home, prefix)
        self.looped = self.again = 0
        self._meters = Meters(World(load(SCENARIO)), MORNING)

    def play(self, loops: int, say: Say) -> None:
        """So many loops with faults, in whose middle n8n is killed; at the end everything is well and written up."""
        self.gemini.answer(*gemini_script(self.seed, 3 * loops))
        self.linear.fail(*(Fault(name, None, chance=chance) for name, chance in LINEAR))
        for n in range(1, loops + 1):
            self.loop(kill=n == loops // 2)
            if n % 8 == 0:
                say(f"{n} loops, {len(self.linear.issues)} issues")
        self.settle()

    def loop(self, kill: bool = False) -> Json:
        """One loop: the meters, a round, and what people do now and then; gives the outcome that was answered."""
        self.looped += 1
        epoch = self.looped
        content = json.dumps(self._meters.reading(epoch)).encode()
        twice = float(uniform(draw(self.seed, epoch, "", "meter"))) < DELIVERED_TWICE
        for _ in range(1 + twice):
            self.call("meter-readings", content, signed(content, self.target))
        if epoch % 12 == 5:
            self.constrain({"hold_above": {"energy": 0.2}})
        if kill:
            self._kill_within(epoch)
        outcome = self.call("governance-loop", json.dumps({"epoch": epoch}).encode(), self.token()).json()
        if outcome.get("epoch") != epoch:
            raise CheckFailed(f"loop {epoch} answered {json.dumps(outcome)[:200]}")
        if epoch % 12 == 5:
            self.constrain({"hold_above": None})
            if outcome["outcome"] == "held":
                self.act(f"/v1/proposals/{outcome['proposal_id']}/{'approve' if epoch % 24 == 5 else 'reject'}", {})
        return dict(outcome)

    def token(self) -> dict[str, str]:
        """The headers of who may start a round."""
        return {"Authorization": f"Bearer {self.target.webhook_token}", "Content-Type": "application/json"}

    def call(self, path: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        """The answer of a webhook, which is called again until it is a good one, as a caller of a lossy line would."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                answer = httpx.post(
                    f"{self.server.url}/webhook/{path}", content=content, headers=headers, timeout=WAIT_S
                )
                if answer.status_code == 200:
                    return answer
                said = f"{answer.status_code} {answer.text[:200]}"
            except httpx.HTTPError as error:
                said = repr(error)
            self.again += 1
            if time.monotonic() > deadline:
                raise CheckFailed(f"{path} does not answer well: {said}")

    def _kill_within(self, epoch: int) -> None:
        """A round, in whose middle n8n is killed, once Linear was asked; and n8n again."""
        asked = self.linear.count
        call = threading.Thread(target=self._ignored, args=(epoch,))
        call.start()
        deadline = time.monotonic() + WAIT_S
        while self.linear.count == asked and time.monotonic() < deadline:
            time.sleep(0.005)
        n8n.stop(self.server, SIGKILL)
        call.join()
        self.server = n8n.start(self.server.home, self.prefix)
        n8n.wait_for(self.server, n8n.WEBHOOKS)

    def _ignored(self, epoch: int) -> None:
        """A call whose answer nobody gets."""
        content = json.dumps({"epoch": epoch}).encode()
        try:
            httpx.post(
                f"{self.server.url}/webhook/governance-loop", content=content, headers=self.token(), timeout=WAIT_S
            )
        except httpx.HTTPError:
            return

    def constrain(self, changed: Json) -> None:
        """Changes some of the constraints, as an operator; None takes a limit away."""
        held = self.operator.get("/v1/constraints").raise_for_status().json()["constraints"]
        wanted = {name: limit for name, limit in {**held, **changed}.items() if limit is not None}
        self.act("/v1/constraints", {"constraints": wanted}, method="PUT")

    def act(self, path: str, body: Json, method: str = "POST") -> None:
        """What an operator does, once."""
        once = {"Idempotency-Key": secrets.token_hex(8)}
        answer = self.operator.request(method, path, json={"reason": "the day", **body}, headers=once)
        if answer.status_code != 200:
            raise CheckFailed(f"{path}: {answer.status_code} {answer.text[:300]}")

    def settle(self) -> None:
        """Linear is well again; the outbox is handed on until nothing waits."""
        self.linear.heal()
        deadline = time.monotonic() + WAIT_S
        while self.waiting():
            if time.monotonic() > deadline:
                raise CheckFailed(f"{len(self.waiting())} outcomes are still not written up")
            self.call("outbox-sync", b"", self.token())

    def waiting(self) -> list[Json]:
        """Outcomes that nobody acknowledged."""
        found: list[Json] = self.operator.get("/v1/outbox").raise_for_status().json()["items"]
        return found

    def outcomes(self) -> list[Json]:
        """Every proposal with what became of it in the end."""
        found: list[Json] = []
        after: int | None = 0
        while after is not None:
            page = self.operator.get("/v1/proposals", params={"after": after, "limit": 100}).raise_for_status().json()
            for one in page["items"]:
                found.append(self.operator.get(f"/v1/proposals/{one['proposal_id']}").raise_for_status().json())
            after = page["next"]
        return found


# --- the end of the day -----------------------------------------------------------------------------------------------


def check(day: Day, place: Path) -> Report:
    """What must hold at the end, once everything is written up. Raises CheckFailed with the first that does not."""
    outcomes, issues = day.outcomes(), day.linear.issues
    if len(outcomes) != day.looped:
        raise CheckFailed(f"{day.looped} loops, and {len(outcomes)} outcomes")
    for one in outcomes:
        wanted = one["linear"]
        issue = issues.pop(wanted["issue_id"], None)
        if issue is None:
            raise CheckFailed(f"no issue for {one['proposal_id']}: {wanted['title']}")
        for key in ("title", "description", "priority"):
            if issue[key] != wanted[key]:
                raise CheckFailed(f"{issue['identifier']}: its {key} is not that of the outcome:\n{issue[key]}")
        if [link["url"] for link in issue["attachments"]["nodes"]][-1:] != [one["url"]]:
            raise CheckFailed(f"{issue['identifier']} has no link to {one['url']}")
    with open_source("postgres", place, (day.url, GRID)) as source:
        verified = verify(source)
    if not verified.passed:
        raise CheckFailed(f"the grid: {verified.first}")
    exported, tape = place / "production.duckdb", place / "traffic.jsonl"
    export_grid(day.url, GRID, exported)
    export_cassette(day.url, GRID, tape)
    replayed, digest = replay(exported, tape)
    if digest != verified.digest:
        raise CheckFailed(f"offline the day ends in {digest[:16]}, in production in {verified.digest[:16]}")
    failed = Counter(one["reply"] for one in (*day.gemini.requests, *day.linear.sent) if one["reply"] != "good")
    came = Counter(one["outcome"] for one in outcomes)
    found = sum(one.count for one in verified.checks)
    return Report(day.looped, dict(came), len(outcomes), len(issues), dict(failed), day.again, found, replayed, digest)


def replay(exported: Path, tape: Path) -> tuple[int, str]:
    """The day again, offline: history is read from the export, but what was proposed only from the models' replies.

    Every reply is parsed and judged anew. Gives how many there were, and the digest of the last record.
    """
    replies = {line.round.proposal_id: line for line in read(tape).interactions}
    engine, used = Engine(MemoryLedger()), 0
    with open_source(str(exported), exported.parent) as source:
        for record in source.records():
            payload = record.payload
            line = replies.get(payload.proposal_id) if isinstance(payload, Decision) else None
            if not isinstance(payload, Decision) or line is None:
                engine.append(payload, record.at)
            else:
                used += 1
                _decide(engine, payload, line, record.at)
    return used, engine.state.digest.hex()


def _decide(engine: Engine, was: Decision, line: Interaction, at: int) -> None:
    """The same round again, from the model's reply: only who asked and when are taken from history."""
    said, state = line.result(engine.state.resources), engine.state
    if isinstance(said, Answer):
        seen = Seen(line.round.epoch, state.constraints_seq, state.entries - was.state_moved)
        engine.propose(Proposal(was.proposal_id, was.proposer, was.n, said.transfers, said.reasoning, seen), at)
    else:
        engine.fail(was.proposal_id, was.proposer, was.n, said, at)


@click.command()
@click.option("--loops", type=click.IntRange(2), default=96, show_default=True, help="One for each quarter of an hour.")
@click.option("--seed", default=1, show_default=True, help="Of the faults.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep the export and n8n's folder here.")
def main(loops: int, seed: int, keep: Path | None) -> None:
    """Plays a day of production in real n8n, with faults, and checks what came of it."""
    try:
        prefix = settings.load().n8n
        n8n.check_installed(prefix)
        with tempfile.TemporaryDirectory(prefix="gridgov-day-") as scratch:
            place = Path(scratch) if keep is None else keep
            place.mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            with standing(prefix, place, seed) as day:
                click.echo(f"{time.monotonic() - began:.0f} s for app, stubs and n8n to come up")
                began = time.monotonic()
                day.play(loops, lambda text: click.echo(f"{time.monotonic() - began:5.0f} s  {text}"))
                report = check(day, place)
    except GridgovError as error:
        click.echo(f"the day failed: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    for name, value in report._asdict().items():
        shown = ", ".join(f"{key} {n}" for key, n in sorted(value.items())) if isinstance(value, dict) else value
        click.echo(f"{name:12} {shown}")


if __name__ == "__main__":
    main()
