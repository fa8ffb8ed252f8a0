"""A run in one .zip for a paper: all that it takes to make it again, and what to say of it; always the same bytes."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from hashlib import sha256
from pathlib import Path, PurePosixPath

from gridgov.errors import BadInput, Damaged
from gridgov.source import Source
from sim.reproduce import Reproduced

EXPORT, MANIFEST, REPLIES = "run.duckdb", "manifest.json", "replies.jsonl"

FORM = 1
"""The version of the manifest's form."""

_ROOT = Path(__file__).parent.parent
_DATA = _ROOT / "scenarios" / "data"
_LICENCES = "README.md"

_README = """\
# {scenario}, seed {seed}: run {run_id}

Made by gridgov {version}; {epochs:,} epochs, head digest `{head}`.

Make it again, with Python 3.11 or later: unpack this file, put the source of gridgov {version} beside it into a folder
`gridgov`, and there

    python3 -m venv venv
    venv/bin/python -m pip install --require-hashes -r requirements.lock
    venv/bin/python -m pip install --no-deps --editable ./gridgov
    venv/bin/gridgov reproduce {export}

The last one says `same head digest` where every record came out as it was. Models are not asked again. `gridgov
reproduce` takes this .zip as it is, too, and then checks each file by its digest first.

{command}

- `{export}`: the run itself, a DuckDB file; `venv/bin/gridgov verify {export}` checks it, any DuckDB reads it.
- `scenario/`: the scenario, and each file that it names: data, cassettes.{replies}
- `{manifest}`: sha256 of each file.

{licences}
"""


def bundle(source: Source, found: Reproduced, out: Path) -> list[str]:
    """Writes the bundle of a run that was made again, and returns what is in it.

    Raises BadInput where the file holds other runs too, or the run names a file by a path of this machine.
    """
    overrides = json.loads(source.info["overrides"])
    if next(iter(source.rows("many_runs")))[1] > 1:
        raise BadInput(f"--bundle: {source.path} holds other runs too; play {found.run_id} by itself")
    said = [text for text in overrides if re.search(r"(^|[\s=:'\"\[{,])(/|\.\./|[A-Za-z]:\\)", text)]
    files = source.files()
    said += [name for name in files if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if said:
        raise BadInput(
            f"--bundle: the run names {said[0]}, which is nowhere else; run it with a path within the scenario's folder"
        )
    held = {EXPORT: source.path.read_bytes()}
    for name, content in files.items():
        kind, _, plain = name.rpartition(":")
        if kind in {"", "scenario"}:
            held[f"scenario/{plain}"] = content
    lines = dict.fromkeys(row["line"] for row in source.named("interactions"))
    if lines:
        held[REPLIES] = "".join(f"{line}\n" for line in lines).encode()
    licences = _licences(files, held)
    for name in ("requirements.lock", "LICENSE"):
        if (_ROOT / name).is_file():
            held[name] = (_ROOT / name).read_bytes()
    held["README.md"] = _README.format(
        scenario=found.scenario,
        seed=found.seed,
        run_id=found.run_id,
        version=source.info["version"],
        epochs=found.epochs,
        head=found.recorded,
        command=_said(found, overrides),
        export=EXPORT,
        replies=f"\n- `{REPLIES}`: what the models said, as a cassette." if lines else "",
        manifest=MANIFEST,
        licences=licences,
    ).encode()
    digests = {name: sha256(content).hexdigest() for name, content in sorted(held.items())}
    manifest = {"form": FORM, "run_id": found.run_id, "head_digest": found.recorded, "sha256": digests}
    held[MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode()
    _write(out, held)
    return sorted(held)


def _said(found: Reproduced, overrides: list[str]) -> str:
    """How the run differs from its scenario's file."""
    if found.fork is not None:
        return f"It is a fork of {found.fork}; the parent's records until then are in it. Overrides: {overrides[1:]}."
    return f"Overrides of the scenario: {json.dumps(overrides, ensure_ascii=False)}." if overrides else "No overrides."


def _licences(files: dict[str, bytes], held: dict[str, bytes]) -> str:
    """What is said of the licences of the data; the text that says it is added to what the bundle holds."""
    known = {path.read_bytes(): path for path in _DATA.parent.rglob("*") if path.is_file()}
    ours = [name for name, content in files.items() if content in known and known[content].parent == _DATA]
    others = [name for name, content in files.items() if ":" not in name and content not in known]
    text = "Licences: gridgov and its scenarios are under Apache-2.0 (`LICENSE`)."
    if ours:
        held["licences/data.md"] = (_DATA / _LICENCES).read_bytes()
        text += f" `licences/data.md` says the source and the licence of {', '.join(ours)}."
    if others:
        text += f" Not known here, so to be said by who hands it on: the licence of {', '.join(others)}."
    return text


def _write(out: Path, held: dict[str, bytes]) -> None:
    """The same files make the same bytes; the file appears complete, or never."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in sorted(held.items()):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    part = out.with_name(f".writing-{out.name}")
    try:
        part.write_bytes(packed.getvalue())
        part.replace(out)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)


def unpacked(path: Path, folder: Path) -> Path:
    """The export of a bundle, put into a folder, once every file is what the manifest says.

    Raises Damaged where one is not, BadInput where the file is no bundle.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            held = {name: archive.read(name) for name in archive.namelist()}
        manifest = json.loads(held.pop(MANIFEST))
        run_id, digests = str(manifest["run_id"]), dict(manifest["sha256"])
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise Damaged(f"{path}: is no whole .zip ({error})") from None
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{path}: is no bundle of gridgov; it has no {MANIFEST} that says what is in it") from None
    for name in sorted({*held, *digests}):
        if name not in held or sha256(held[name]).hexdigest() != digests.get(name):
            raise Damaged(f"{path}: {name} in it is not what {MANIFEST} says")
    if EXPORT not in held or not re.fullmatch("[0-9a-f]{16}", run_id):
        raise BadInput(f"{path}: is no bundle of gridgov; it has no {EXPORT}")
    found = folder / f"{run_id}.duckdb"
    found.write_bytes(held[EXPORT])
    return found
