"""Suites by name, from where they are published on the hub.

A name may end in `@revision`; without one the newest is taken, and the suite's fingerprint says what it was. A commit
that was fetched once is read without the hub.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from artifacts import paths
from artifacts.errors import InputError, TransientError
from tasks import hub
from tasks.functional.problems import Suite
from tasks.functional.reading import read_suite

_FIELD = "suite"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _PublishedSuite:
    dataset: str
    fits: tuple[str, ...]
    """What the name of the suite's file contains, all of it."""


PUBLISHED = {
    "humaneval": _PublishedSuite("openai/openai_humaneval", ()),
    "humaneval+": _PublishedSuite("evalplus/humanevalplus", ()),
    "mbpp": _PublishedSuite("google-research-datasets/mbpp", ("full/",)),
    "mbpp-sanitized": _PublishedSuite("google-research-datasets/mbpp", ("sanitized/",)),
    "mbpp+": _PublishedSuite("evalplus/mbppplus", ()),
    "humaneval-infilling-single-line": _PublishedSuite("loubnabnl/humaneval_infilling", ("SingleLine",)),
    "humaneval-infilling-multi-line": _PublishedSuite("loubnabnl/humaneval_infilling", ("MultiLine",)),
    "humaneval-infilling-random-span": _PublishedSuite("loubnabnl/humaneval_infilling", ("RandomSpanInfilling",)),
}
_COMMIT = re.compile("[0-9a-f]{40}")
_FORMS = (".jsonl.gz", ".jsonl", ".parquet")


def suite(name_or_path: str) -> Suite:
    """A suite by its name or from a file.

    Raises:
        InputError: no such suite or file, or the file is not in order.
    """
    path = paths.expanded(name_or_path, _FIELD)
    name, _, revision = name_or_path.lower().partition("@")
    if not path.is_file() and name in PUBLISHED:
        return read_suite(_fetch(name, revision or "main"), name)
    if not path.exists() and "/" not in name_or_path and not path.suffix:
        known = ", ".join(PUBLISHED)
        raise InputError(f"there is no suite {name_or_path!r}", field=_FIELD, remedy=f"name a file, or one of {known}")
    return read_suite(path)


def _fetch(name: str, revision: str) -> Path:
    from huggingface_hub import constants

    place, policy = PUBLISHED[name], hub.RetryPolicy(attempts=2)
    if _COMMIT.fullmatch(revision) and (found := _here(place, revision)):
        return found
    try:
        return _from_hub(name, revision, policy)
    except TransientError as error:
        if found := _here(place, revision):
            log.warning("%s; what was fetched of it before is taken", error.problem)
            return found
        raise _no_hub(name, error.problem) from error
    except InputError as error:
        if not constants.HF_HUB_OFFLINE:
            raise
        if found := _here(place, revision):
            return found
        raise _no_hub(name, error.problem) from error


def _no_hub(name: str, problem: str) -> InputError:
    """Not a fault to wait for: a file does instead of the hub."""
    return InputError(
        f"the suite {name} cannot be fetched: {problem}",
        field=_FIELD,
        remedy="give the path of its file (HumanEval.jsonl.gz) in the place of the name",
    )


def _from_hub(name: str, revision: str, policy: hub.RetryPolicy) -> Path:
    from huggingface_hub import hf_hub_download

    place = PUBLISHED[name]
    what = f"the data set {place.dataset}"
    info = hub.ask(
        what,
        lambda: hub.api().dataset_info(place.dataset, revision=revision, timeout=5),
        field=_FIELD,
        policy=policy,
    )
    usable = _usable(place, [file.rfilename for file in info.siblings or ()])
    if not usable:
        raise InputError(f"{what} has no file of {name}", field=_FIELD, remedy="download the suite and name its file")
    return Path(
        hub.ask(
            f"{usable[0]} of {what}",
            lambda: hf_hub_download(
                place.dataset, usable[0], repo_type="dataset", revision=info.sha, endpoint=hub.endpoint()
            ),
            field=_FIELD,
            policy=policy,
        )
    )


def _here(place: _PublishedSuite, revision: str) -> Path | None:
    """The file of a revision that was fetched before. What a commit is nobody needs to be asked."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(place.dataset, repo_type="dataset", revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    found = _usable(place, [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()])
    return folder / found[0] if found else None


def _usable(place: _PublishedSuite, names: list[str]) -> list[str]:
    # the shortest first: a suite before its light variant
    shortest = sorted(names, key=lambda name: (len(name), name))
    usable = [name for name in shortest if name.endswith(_FORMS) and all(part in name for part in place.fits)]
    # a train split may stand beside the one that is meant
    return [name for name in usable if "test" in name] or usable
