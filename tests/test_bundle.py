"""A bundle has all that it takes to make a run again, says whose the data is, and is the same each time."""

import json
import os
import shutil
import zipfile
from hashlib import sha256

import pytest

from sim.stubs.gemini import Stub
from tests.commands import ROOT, one_line
from tests.plays import SCENARIOS

pytest_plugins = ["tests.commands"]


@pytest.fixture
def bundled(gridgov, tmp_path):
    """Runs a scenario and bundles the run; what `run` said, and the bundle."""

    def made(name, *options):
        run = gridgov("run", SCENARIOS / f"{name}.yaml", *options, "--json").json
        out = tmp_path / f"{name}.zip"
        said = gridgov("reproduce", run["run_id"], "--bundle", out, "--json")
        assert said.code == 0 and said.json["bundle"] == str(out), said
        return run, out

    return made


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(path, **given):
    """Writes a bundle anew with other contents; None leaves a file out."""
    held = {**contents(path), **given}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in held.items():
            if content is not None:
                archive.writestr(name, content)


@pytest.mark.parametrize("name", ["seed", "hostile", "community-week"])
def test_bundle_alone_is_enough(gridgov, bundled, tmp_path, monkeypatch, name):
    run, out = bundled(name, "--epochs", "6", "--set", "description=other")
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    told = gridgov("reproduce", out, "--json").json
    assert told["same"] and told["found"] == run["head_digest"] and told["source"] == str(out)
    held = contents(out)
    manifest = json.loads(held.pop("manifest.json"))
    assert manifest["sha256"] == {each: sha256(content).hexdigest() for each, content in held.items()}
    assert manifest["head_digest"] == run["head_digest"]
    assert held[f"scenario/{name}.yaml"] == (SCENARIOS / f"{name}.yaml").read_bytes()
    assert held["requirements.lock"] == (ROOT / "requirements.lock").read_bytes()
    how = held["README.md"].decode()
    assert "--editable ./gridgov\n" in how, "what is installed without its folder lacks the prompts"
    assert "gridgov reproduce run.duckdb\n" in how
    (tmp_path / "elsewhere" / "run.duckdb").write_bytes(held["run.duckdb"])
    assert gridgov("reproduce", "run.duckdb", "--json").json["found"] == run["head_digest"]
    for each, content in held.items():
        assert str(tmp_path).encode() not in content and str(ROOT).encode() not in content, each


def test_data_comes_with_what_is_said_of_its_licence(gridgov, bundled, tmp_path):
    data = "data/citylearn_2022_17_homes.csv.gz"
    held = contents(bundled("community-week", "--epochs", "6")[1])
    assert held[f"scenario/{data}"] == (SCENARIOS / data).read_bytes()
    assert held["licences/data.md"] == (SCENARIOS / "data" / "README.md").read_bytes()
    assert f"the licence of {data}" in held["README.md"].decode() and "Not known" not in held["README.md"].decode()
    shutil.copy(SCENARIOS / "seed.yaml", tmp_path)
    (tmp_path / "data").mkdir()
    proposals = (SCENARIOS / "data" / "seed-proposals.jsonl").read_text()
    (tmp_path / "data" / "seed-proposals.jsonl").write_text(proposals + "\n")
    run = gridgov("run", tmp_path / "seed.yaml", "--json").json
    assert gridgov("reproduce", run["run_id"], "--bundle", tmp_path / "x.zip").code == 0
    text = contents(tmp_path / "x.zip")["README.md"].decode()
    assert "Not known here, so to be said by who hands it on: the licence of data/seed-proposals.jsonl" in text


def test_same_run_is_the_same_bytes(gridgov, bundled, tmp_path):
    run, out = bundled("seed")
    with zipfile.ZipFile(out) as archive:
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    (tmp_path / "other").mkdir()
    again = tmp_path / "other" / out.name
    os.utime(run["export"], (0, 0))
    assert gridgov("reproduce", run["export"], "--bundle", again).code == 0
    assert again.read_bytes() == out.read_bytes()
    from_bundle = tmp_path / "other" / "x" / out.name
    from_bundle.parent.mkdir()
    assert gridgov("reproduce", out, "--bundle", from_bundle).code == 0
    assert from_bundle.read_bytes() == out.read_bytes()


def test_what_models_said_is_a_cassette_in_it(gridgov, bundled, tmp_path, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "MARKED-0123456789-abcdefghijklmnop")
    with Stub() as stub:
        monkeypatch.setenv("GRIDGOV_GEMINI_BASE_URL", stub.url)
        run, out = bundled("community-week", "--epochs", "4", "--proposer", "gemini:gemini-3.8-flash")
    monkeypatch.delenv("GEMINI_API_KEY")
    assert gridgov("reproduce", out, "--json").json["found"] == run["head_digest"]
    held = contents(out)
    assert not any(b"MARKED-0123456789" in content for content in held.values())
    tape = tmp_path / "x.jsonl"
    tape.write_bytes(held["replies.jsonl"])
    again = ("run", SCENARIOS / "community-week.yaml", "--epochs", "4", "--proposer", f"cassette:{tape}", "--json")
    assert gridgov(*again).json["head_digest"] == run["head_digest"]


def test_bundle_that_was_changed_is_refused(gridgov, bundled, tmp_path):
    _, out = bundled("seed")
    whole = out.read_bytes()
    for given, code, says in (
        ({"scenario/seed.yaml": b"x"}, 1, "scenario/seed.yaml in it is not what manifest.json says"),
        ({"LICENSE": None}, 1, "LICENSE in it is not what manifest.json says"),
        ({"more": b""}, 1, "more in it is not what manifest.json says"),
        ({"manifest.json": None}, 2, "is no bundle of gridgov"),
        ({"manifest.json": b"[]"}, 2, "is no bundle of gridgov"),
    ):
        out.write_bytes(whole)
        changed(out, **given)
        assert says in one_line(gridgov("reproduce", out), code)
    out.write_bytes(whole[:-100])
    assert "is no whole .zip" in one_line(gridgov("reproduce", out), 1)


def test_what_no_other_machine_has_is_not_bundled(gridgov, tmp_path):
    tape = SCENARIOS / "cassettes" / "hostile.jsonl"
    run = gridgov("run", SCENARIOS / "hostile.yaml", "--epochs", "6", "--proposer", f"cassette:{tape}", "--json").json
    out = tmp_path / "x.zip"
    said = one_line(gridgov("reproduce", run["run_id"], "--bundle", out), 2)
    assert f"the run names {tape}" in said and "with a path within the scenario's folder" in said
    swept = gridgov("sweep", SCENARIOS / "seed.yaml", "--seeds", "0:2", "--jobs", "1", "--json").json
    one = f"{swept['export']}#{swept['runs'][0]['run_id']}"
    assert "holds other runs too" in one_line(gridgov("reproduce", one, "--bundle", out), 2)
    assert "ends in .zip" in one_line(gridgov("reproduce", one, "--bundle", tmp_path / "x.tar"), 2)
    assert not out.exists() and not list(tmp_path.glob(".writing-*"))
