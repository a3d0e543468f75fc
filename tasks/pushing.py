"""Putting an export on the hub: the files of its forms and one model card, and nothing else.

Large files go first, one after another, then one commit shows all of them. So a transfer that breaks leaves no half of
a model that others could load, and the next try sends no file again that arrived: the hub knows files by contents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from artifacts.errors import InputError, TransientError
from artifacts.progress import SILENT, Progress
from artifacts.schema import ExportedModel
from artifacts.store import Manifest
from tasks import hub
from tasks.exporting.card import EVALUATION

FIELD = "ORG/NAME"
CARD = "README.md"
ADAPTER = "adapter"
POLICY = hub.RetryPolicy()


@dataclass(frozen=True)
class Upload:
    """One file of the repository."""

    name: str
    """Its path there."""
    content: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True)
class Pushed:
    """What is on the hub now."""

    address: str
    """Of the commit, for a person."""
    commit: str


def check_name(name: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        InputError: it is none, or has no owner.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but lazily exported

    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if name.count("/") != 1:
        raise InputError("this is no name of a repository", field=FIELD, remedy="use the form `owner/name`")


def uploads(export: ExportedModel, manifest: Manifest, forms: Sequence[str], cards: Path | None) -> list[Upload]:
    """The files of some forms of an export as a repository has them.

    Whatever loads a model from the hub looks at the top of a repository. So the forms' files are there, but the
    adapter's are in a folder, unless it is alone.

    Args:
        cards: a report's folder of model cards, with the results.

    Raises:
        InputError: the export has no such form.
    """
    there = {form.name: form.bytes for form in export.forms}
    chosen = list(dict.fromkeys(forms)) or list(there)
    for form in chosen:
        if form not in there:
            raise InputError(
                f"this export has no form “{form}”", field="--form", remedy=f"use one of {', '.join(there)}"
            )
    # Of files that several forms have, such as Ollama's, the first counts: that of the smallest.
    chosen.sort(key=lambda form: (form == ADAPTER, form != "merged", there[form]))
    first = chosen[0]
    found: dict[str, Upload] = {}
    for form in chosen:
        for path in sorted(manifest.files):
            folder, _, name = path.partition("/")
            if folder != form or (name == CARD and form not in (first, ADAPTER)):
                continue
            name = f"{ADAPTER}/{name}" if form == ADAPTER != first else name
            found.setdefault(name, Upload(name, _content(export, path, cards)))
    others = [form for form in chosen if form != first]
    if others:
        found[CARD] = Upload(CARD, _with_table(found, first, others))
    return list(found.values())


def _content(export: ExportedModel, path: str, cards: Path | None) -> Path | bytes:
    """A file, or what is said of it in place of the names of folders of this machine."""
    place = export.path / path
    form = PurePosixPath(path).parts[0]
    if place.name == CARD and cards and (cards / f"{form}.md").is_file():
        place = cards / f"{form}.md"
    if place.suffix not in (".md", ".json") or place.stat().st_size > 1 << 20:
        return place
    text = place.read_text(encoding="utf-8")
    for name in _folders(export):
        for written in (json.dumps(name)[1:-1], name):
            text = text.replace(written, Path(name).name)
    return text.encode()


def _folders(export: ExportedModel) -> list[str]:
    """What files of the export call its base model where that is a folder here, the longest first."""
    if export.base_revision is not None:
        return []
    config = export.path / ADAPTER / "adapter_config.json"
    told = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    names = {export.base_model}
    if told.get("revision") is None:  # otherwise it is called as the hub calls it
        names.add(str(told.get("base_model_name_or_path") or ""))
    return sorted((name for name in names if "/" in name), key=len, reverse=True)


def _with_table(found: dict[str, Upload], first: str, others: Sequence[str]) -> bytes:
    """The first form's card, which says what else is there."""
    card = found[CARD].content
    text = card.decode() if isinstance(card, bytes) else card.read_text(encoding="utf-8")
    before, mark, after = text.partition(f"\n{EVALUATION}\n")
    names = sorted(name for name in found if PurePosixPath(name).suffix in (".safetensors", ".gguf"))
    lines = [f"| `{name}` | {found[name].size:,} |" for name in names]
    table = "\n".join(["| file | bytes |", "| --- | ---: |", *lines])
    said = f"\n## Files\n\nBesides {first}: {', '.join(others)}.\n\n{table}\n"
    return f"{before}{said}{mark}{after}".encode()


def push(name: str, files: Sequence[Upload], *, private: bool, message: str, progress: Progress = SILENT) -> Pushed:
    """Put files into a repository, which is made where there is none.

    Raises:
        InputError: no token is set, or it may not do this; the repository is public, and `private` was asked for.
        TransientError: the hub did not take a file within the bounds of `POLICY`.
    """
    from huggingface_hub import CommitOperationAdd, get_token

    if not get_token():
        raise InputError(
            "the hub takes files from known people only, and no token is set",
            field="HF_TOKEN",
            remedy="set HF_TOKEN to a token with write access",
        )
    api, what = hub.api(), f"the repository {name}"
    with _resumable(name):
        if hub.ask(what, lambda: api.repo_exists(name), field=FIELD, policy=POLICY):
            if private and not hub.ask(what, lambda: api.model_info(name), field=FIELD, policy=POLICY).private:
                raise InputError(
                    f"{name} is there already, and everybody can read it",
                    field=FIELD,
                    remedy="say --public if that is meant, or name another repository",
                )
        else:
            hub.ask(what, lambda: api.create_repo(name, private=private, exist_ok=True), field=FIELD, policy=POLICY)
        operations = []
        for one in files:
            progress.begin(one.name, one.size, "bytes")
            operation = CommitOperationAdd(path_in_repo=one.name, path_or_fileobj=one.content)

            def send(operation: CommitOperationAdd = operation) -> None:
                with _blaming_the_hub():
                    api.preupload_lfs_files(name, [operation], free_memory=False)

            hub.ask(f"{one.name} in {name}", send, field=FIELD, policy=POLICY)
            operations.append(operation)
            progress.update(one.size)
        info = hub.ask(
            what, lambda: api.create_commit(name, operations, commit_message=message), field=FIELD, policy=POLICY
        )
    return Pushed(info.commit_url, info.oid)


@contextmanager
def _resumable(name: str) -> Iterator[None]:
    try:
        yield
    except TransientError as error:
        raise TransientError(
            error.problem, remedy=f"run the same command again: what {name} has already is not sent again"
        ) from error


@contextmanager
def _blaming_the_hub() -> Iterator[None]:
    """`huggingface_hub` wraps what went wrong with a file, and its Xet client has errors of its own."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__cause__, Exception):
            raise error.__cause__ from None
        raise EOFError(str(error)) from error  # what passes, to `tasks.hub`
