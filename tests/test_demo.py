"""`make demo`: the table, what it points to, and that an edit which spoils the cassette is said and survived."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sim import demo
from tests.plays import SCENARIOS


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's scenario, to be edited."""
    shutil.copytree(SCENARIOS, tmp_path / "scenarios")
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setenv("GRIDGOV_RUNS", str(tmp_path / "runs"))
    return tmp_path / "scenarios" / "community-week.yaml"


def test_demo_compares_four_proposers_and_says_where_to_look(edited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main() == 0
    said = " ".join(capsys.readouterr().out.split())
    for word in ("none", "greedy", "optimal", "cassette", "synthetic", "regret", "gridgov replay", "gridgov verify"):
        assert word in said
    assert "left out" not in said
    assert len(list((edited.parent.parent / "runs").glob("*.duckdb"))) == 4


def test_demo_goes_on_without_the_cassette_where_an_edit_made_it_miss(
    edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited.write_text(edited.read_text().replace("epoch_quota: {energy: 1}", "epoch_quota: {energy: 0.6}"))
    assert demo.main() == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "was left out" in said and "the constraints differ" in said and "epoch_quota" in said
    assert len(list((edited.parent.parent / "runs").glob("*.duckdb"))) == 3


def test_demo_says_in_one_line_what_is_wrong_with_a_broken_edit(
    edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited.write_text(edited.read_text().replace("epoch_quota", "epoch_qouta"))
    assert demo.main() == 2
    said = capsys.readouterr()
    assert "did you mean 'epoch_quota'" in said.err and said.err.count("\n") == 1
