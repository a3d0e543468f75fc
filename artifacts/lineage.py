"""Lineage: two files inside an export that tell where the model comes from, and the check of everything they say.

`lineage.json` names the export's files, what its key was made of, and every artifact and record that it was made from
(with their files, settings, code and library versions). `sources.parquet`, which it names too, has every row of data,
with its licence. Both are measurements: kept and verified, but no part of the export's fingerprint, since the same
bytes may have come about at another time.

What the check finds: an altered file, and any altered figure, by the seal over the whole. Whoever alters a figure and
renews the seal is found where the parts contradict each other, or where the store is at hand and has it otherwise.
What it cannot find is a forgery of everything that agrees with itself, far from the store: there is no signature.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from artifacts import digest, reading
from artifacts.errors import CodetuneError, InputError
from artifacts.rows import each_row
from artifacts.schema import Plan, Record
from artifacts.store import MANIFEST, Damaged, Manifest, Store, read_manifest

LINEAGE = "lineage.json"
REMEDY = "repeat the `codetune run` that made the model, which builds it again"
LARGEST = 1 << 26
"""Bytes: far more than the names of an export's files and its settings take."""
SOURCES = "sources.parquet"
"""Beside it: a row for every file that was learned from or held out."""
ROW = ("split", "repo", "path", "license", "sha256")
"""What is told of each; all are strings."""
SPLITS = ("train", "held_out")


class Finding(Record):
    """One thing that was checked."""

    what: str
    verdict: Literal["ok", "fault", "not at hand"]
    detail: str = ""


def sealed(told: dict[str, Any]) -> dict[str, Any]:
    """The same with a sha256 over everything in it."""
    content = {name: value for name, value in told.items() if name != "seal"}
    return {**content, "seal": digest.of_json(content)}


def read(model: Path) -> tuple[Path, dict[str, Any]]:
    """The export's folder and its lineage, from that folder, one inside it, or the file.

    Raises:
        InputError: there is none, or it is no JSON object that means one thing.
    """
    places = (model, model.parent) if model.is_dir() else (model.parent,)
    folder = next((place for place in places if (place / LINEAGE).is_file()), None)
    if folder is None:
        raise InputError(
            f"{model} has no {LINEAGE}", field="MODEL", remedy="give a folder that `codetune run` exported"
        )
    return folder, reading.read_object(folder / LINEAGE, limit=LARGEST, field="MODEL", remedy=REMEDY)


def check(folder: Path, told: dict[str, Any], store: Store | None) -> list[Finding]:
    """Everything that can be checked, in order; with the store also against what it holds."""
    findings = []
    try:
        same = sealed(told)["seal"] == told.get("seal")
        findings.append(_finding("the seal over the lineage", None if same else "something in it was altered"))
        files = list(_check_files(folder, told["model"]))
        findings += [*files, *_check_links(told)]
        # rows of an altered file would be compared with what they are not
        rows = None if any(one.what == SOURCES and one.verdict == "fault" for one in files) else folder / SOURCES
        if rows:
            findings.append(_check_rows(rows, told))
        if store:
            findings += _check_store(folder, rows, told, store)
    except (LookupError, TypeError, AttributeError, ValueError, OSError, CodetuneError) as error:
        findings.append(_finding("the form of the lineage", f"a part is missing or malformed: {error!r}"))
    return findings


def rows_of(sample: Path) -> Iterator[dict[str, str]]:
    """What is told of a sample's files, in order, few of them in memory at once."""
    for split in SPLITS:
        for row in each_row([sample / f"{split}.parquet"], ROW[1:]):
            yield {"split": split, **row}


def content_fingerprint(artifact: dict[str, Any]) -> str:
    """The fingerprint that follows from the files that are told of an artifact."""
    return digest.of_json(_content(artifact))


def _content(artifact: dict[str, Any]) -> dict[str, str]:
    patterns = artifact["measurements"]
    files = artifact["files"].items()
    return {name: one["sha256"] for name, one in files if not any(fnmatch(name, pattern) for pattern in patterns)}


def _check_files(folder: Path, model: dict[str, Any]) -> Iterator[Finding]:
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name, entry in model["files"].items():
        path = folder / name
        if name not in there:
            yield _finding(name, "it is missing")
        elif path.stat().st_size != entry["size"] or digest.of_file(path) != entry["sha256"]:
            yield _finding(name, "its contents were altered")
        else:
            yield _finding(name)
    for name in sorted(there - set(model["files"]) - {LINEAGE, MANIFEST}):
        yield _finding(name, "the lineage does not know it")


def _check_links(told: dict[str, Any]) -> Iterator[Finding]:
    """Keys and fingerprints follow from what is told of them, and each leads to another."""
    inputs = told["inputs"]
    known = {one["fingerprint"] for one in inputs.values()}
    for name, one in {"export": told["model"], **inputs}.items():
        if "files" not in one:
            yield _finding(f"{name} {one['fingerprint'][:12]}", _record_fault(name, one))
            continue
        faults = []
        if digest.of_json(one["key_parts"]) != one["key"]:
            faults.append("its key does not follow from its settings")
        if content_fingerprint(one) != one["fingerprint"]:
            faults.append("its fingerprint does not follow from its files")
        if loose := [label for label, print_ in one["key_parts"]["inputs"].items() if print_ not in known]:
            faults.append(f"nothing is told of its {', '.join(loose)}")
        if name == "export" and one["key_parts"]["inputs"] != {label: i["fingerprint"] for label, i in inputs.items()}:
            faults.append("it was made from other inputs")
        yield _finding(f"{name} {one['fingerprint'][:12]}", "; ".join(faults))


def _record_fault(name: str, one: dict[str, Any]) -> str | None:
    if name != "plan":
        return None if one["value"].get("fingerprint") == one["fingerprint"] else "it has another fingerprint"
    try:
        same = Plan.model_validate(one["value"]).fingerprint == one["fingerprint"]
    except ValidationError:
        same = False
    return None if same else "its fingerprint does not follow from what it says"


def _check_rows(rows: Path, told: dict[str, Any]) -> Finding:
    data, handle = told["data"], told["inputs"]["sample"]["handle"]
    files, licenses = Counter[str](dict.fromkeys(SPLITS, 0)), Counter[str]()
    for row in each_row([rows], ROW):
        files[row["split"]] += 1
        licenses[row["license"]] += 1
    fits = dict(files) == data["files"] == {split: handle[split]["files"] for split in SPLITS}
    fits = fits and dict(licenses) == data["licenses"] == handle["licenses"]
    return _finding(
        f"{files.total():,} rows of data", None if fits else "their number or their licences do not fit the sample"
    )


def _check_store(folder: Path, rows: Path | None, told: dict[str, Any], store: Store) -> Iterator[Finding]:
    model = told["model"]
    for name, one in {"export": model, **told["inputs"]}.items():
        if "files" not in one:
            continue
        place = f"{one['stage']}/{one['key']}"
        what = f"{name} in the store"
        try:
            found = store.check(place)
        except Damaged as damage:
            missing = "not in the store" in str(damage)
            yield Finding(what=what, verdict="not at hand" if missing else "fault", detail=str(damage))
            continue
        fault = _differs(one, read_manifest(found))
        if name == "export" and digest.of_file(found / LINEAGE) != digest.of_file(folder / LINEAGE):
            fault = "its lineage is another one there"
        if name == "sample" and rows and any(a != b for a, b in zip_longest(rows_of(found), each_row([rows], ROW))):
            fault = "its rows are others there"
        yield _finding(what, fault)


def _differs(one: dict[str, Any], manifest: Manifest) -> str | None:
    there = {
        "files": {name: entry.model_dump() for name, entry in manifest.files.items()},
        "measurements": one["measurements"],
    }
    if manifest.fingerprint != one["fingerprint"] or _content(there) != _content(one):
        return "its contents are others there"
    if manifest.provenance.get("key_parts") != one["key_parts"]:
        return "its settings are others there"
    built = one.get("provenance", {}).get("finished") == manifest.provenance.get("finished")
    if built and "handle" in one and (one["handle"], one["provenance"]) != (manifest.handle, manifest.provenance):
        return "its figures or versions are others there"
    return None


def _finding(what: str, fault: str | None = None) -> Finding:
    return Finding(what=what, verdict="fault" if fault else "ok", detail=fault or "")
