"""What the documents say is true: their commands run, their tables name what there is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gridgov.embedded import temporary
from gridgov.settings import Settings
from sim.stubs.gemini import Stub
from tests.commands import Run, up

pytest_plugins = ["tests.commands"]

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(name: str, document: str = README) -> str:
    """The code block after the mark of this name."""
    found = re.search(rf"<!-- {name} -->\s*```\w*\n(.*?)```", document, re.DOTALL)
    assert found, f"the document has a block {name}"
    return found[1]


def said(lines: str, folder: Path) -> list[str]:
    """All that commands print that end as they should, line by line."""
    found: list[str] = []
    for line in filter(None, lines.splitlines()):
        done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        found += [printed.rstrip() for printed in done.stdout.splitlines()]
    return found


def commands() -> list[str]:
    return [line for line in block("commands").splitlines() if line.strip()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a clone with its .venv, in which commands may leave files."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("scenarios", "prompts", ".venv"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def test_every_command_of_the_readme_runs(clone: Path) -> None:
    assert len(commands()) >= 6
    for command in commands():
        done = subprocess.run(command, shell=True, cwd=clone, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout, command


def test_numbers_of_the_study_are_what_its_commands_print(clone: Path) -> None:
    found = said(block("study") + block("study-2"), clone)
    for shown in (block("study-reserve") + block("study-approval")).splitlines():
        assert shown.rstrip() in found


def test_tutorial_for_govsim_can_be_followed(clone: Path) -> None:
    text = (ROOT / "scenarios" / "GOVSIM.md").read_text()
    found = said("".join(block(name, text) for name in ("policies", "prompt", "replay", "survival")), clone)
    for shown in block("survival-table", text).splitlines():
        assert shown.rstrip() in found
    assert "60 of 60 replies are synthetic: no model said them" in found
    assert "<svg" in (clone / "runs" / "asks.html").read_text()


def test_section_about_production_can_be_followed(clone: Path, home: Path, database: str) -> None:
    """What `up` prints has the form that is shown, and each command then does what its comment says."""
    lines = [line for line in block("production").splitlines() if line and not line.startswith(("#", "export"))]
    with up() as grid:
        settings = {**os.environ, "KEY": str(grid.key), "APP": grid.url, "GRIDGOV_API_URL": grid.url}
        said = []
        for line in lines:
            done = subprocess.run(
                line, shell=True, cwd=clone, env=settings, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            said.append(done.stdout)
    world, executed, refused, row, verified, well = said
    assert [actor["balances"]["energy"] for actor in json.loads(world)["actors"]] == [100, 80]
    assert json.loads(executed)["outcome"] == "executed"
    assert [one["code"] for one in json.loads(refused)["violations"]] == ["max_transfer"]
    assert "transfer | 12.5" in " ".join(row.split())
    assert "FAILED" not in verified and "head 3:" in verified
    assert "BAD" not in well


def test_first_gemini_run_in_the_readme_works_against_the_stub(clone: Path) -> None:
    heads = []
    with Stub() as stub:
        settings = {**os.environ, "GEMINI_API_KEY": "any-key-will-do-here", "GRIDGOV_GEMINI_BASE_URL": stub.url}
        for line in (line for line in block("gemini").splitlines() if not line.startswith("#")):
            done = subprocess.run(
                line, shell=True, cwd=clone, env=settings, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            heads += re.findall(r"head (\w+)\.\.\.", done.stdout)
        assert stub.count == 24
    assert len(heads) == 2 and heads[0] == heads[1]


def test_backup_in_the_readme_restores_on_another_server(
    clone: Path, home: Path, database: str, postgres: Path, monkeypatch: pytest.MonkeyPatch, gridgov: Run
) -> None:
    monkeypatch.setenv("GRIDGOV_DATABASE_URL", database)
    assert gridgov("migrate", "--scenario", ROOT / "scenarios" / "seed.yaml").code == 0
    head = json.loads(gridgov("verify", "postgres", "--json").out)["head"]
    with temporary() as other:
        settings = {**os.environ, "OLD": database, "NEW": other.url, "HEAD": f"{head['seq']}:{head['digest']}"}
        done = subprocess.run(
            f"set -e\n{block('backup')}",
            shell=True,
            cwd=clone,
            env=settings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"head {head['seq']}:{head['digest']}" in done.stdout


def test_scenario_in_the_readme_is_the_one_in_the_repository() -> None:
    assert block("scenario") == (ROOT / "scenarios" / "community-week.yaml").read_text()


def test_table_of_the_demo_is_what_the_demo_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDGOV_RUNS", str(tmp_path))
    done = subprocess.run([sys.executable, "-m", "sim.demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert block("demo") in "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"


def test_settings_table_names_every_setting() -> None:
    named = set(re.findall(r"^\| `(GRIDGOV_\w+|GEMINI_\w+|LINEAR_\w+)`", README, re.MULTILINE))
    bare = {"gemini_api_key", "linear_api_key"}  # Google's and Linear's own names, without a prefix of ours
    assert {name.upper() if name in bare else f"GRIDGOV_{name.upper()}" for name in Settings._fields} == named


def test_scenarios_in_the_readme_are_those_that_there_are() -> None:
    there = {path.name for path in (ROOT / "scenarios").glob("*.yaml")}
    assert there <= set(re.findall(r"`([\w-]+\.yaml)`", README))


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_documents_name_only_files_that_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    for path in re.findall(r"`((?:gridgov|sim|tests|scenarios|prompts)/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists(), f"{document} names {path}"


def test_architecture_follows_one_proposal_through_six_short_files() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = text.partition("six short files")[2].partition("## ")[0]
    files = re.findall(r"^\| `(gridgov/\w+\.py)`", table, re.MULTILINE)
    assert len(files) == 6
    assert all(len((ROOT / file).read_text().splitlines()) < 600 for file in files)
