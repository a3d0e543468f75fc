"""The base model as configured: where it is, which revision, and how to bring it here.

`locate` reads metadata only (a few kilobytes), so that a refusal comes before anything large is downloaded; `fetch`
brings the weights. Names are a folder (relative to the current one, or to the project for the built-in model) or a
repository on the hub; `HF_ENDPOINT`, `HF_TOKEN` and `HF_HOME` mean what they mean everywhere.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import Field

from artifacts import digest
from artifacts.configuration import Config, GivenPath
from artifacts.errors import InputError
from artifacts.installation import PROJECT
from artifacts.progress import SILENT, Progress
from artifacts.schema import Record
from tasks import hub

_FIELD = "model.name"
_REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
_METADATA = (
    "*.json",
    "tokenizer.model",
    "merges.txt",
    "vocab.txt",
    "*.jinja",
    "LICENSE*",
    "USE_POLICY*",
    "NOTICE*",
    "README.md",
)
_WEIGHTS = ("*.safetensors",)
_BELOW = ("*/*",)
"""Subfolders hold other formats of the same weights."""
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
"""Any of these sets of files makes a tokenizer."""
_CAUSAL = ("ForCausalLM", "LMHeadModel")
PATIENCE = hub.Patience()
"""How long the hub is waited for."""


class ModelConfig(Config):
    """Which model is adapted."""

    name: GivenPath = "codellama/CodeLlama-7b-Instruct-hf"
    """A repository on the hub, or a folder with `config.json`, weights and tokenizer."""
    revision: str | None = None
    """Branch, tag or commit of a hub repository; it is resolved to a commit when the run starts."""


class ModelReference(Record):
    """A base model, found but not yet loaded. Equal fingerprints mean equal weights and tokenizer."""

    name: str
    """As configured."""
    revision: str | None
    """The commit on the hub; None for a folder."""
    fingerprint: str
    """From the commit, or from the contents of the folder."""
    metadata: Path = Field(exclude=True)
    """A folder on this machine with `config.json`, `generation_config.json` and the tokenizer; no weights."""


def locate(config: ModelConfig) -> ModelReference:
    """Find the model and bring its metadata here.

    Raises:
        InputError: no such folder or repository, no access, no weights, no tokenizer, not a causal language model.
        TransientError: the hub does not answer.
    """
    try:
        if folder := _folder(config.name):
            return _locate_in(folder, config.name)
    except OSError as error:
        raise InputError(
            f"the model in {config.name} cannot be read: {error}",
            field=_FIELD,
            remedy="make it readable for the user who runs this, or copy it again",
        ) from error
    return _locate_on_hub(config)


def check_unchanged(model: ModelReference, fingerprint: object) -> None:
    """An export's adapter belongs on the weights that it was trained on.

    Args:
        fingerprint: the base model's, as the export records it; None where it does not.

    Raises:
        InputError: the base has other files now. (A commit on the hub has the same for ever.)
    """
    if isinstance(fingerprint, str) and fingerprint != model.fingerprint:
        raise InputError(
            f"the base model in {model.name} is not the one that the adapter was trained on: its files were changed",
            field=_FIELD,
            remedy="restore it as it was, or run the recipe again to train on what is there now",
        )


def fetch(model: ModelReference, progress: Progress = SILENT) -> Path:
    """Bring the weights (safetensors) here. Returns a folder for `from_pretrained`.

    Raises:
        InputError: the repository lacks a part of the weights.
        TransientError: the hub does not answer.
    """
    if model.revision is None:
        return model.metadata
    folder = _snapshot(model.name, model.revision, (*_METADATA, *_WEIGHTS), progress)
    names = [path.name for path in folder.iterdir()]
    for shard in _shards(model.name, folder, names):
        _check_weights(model.name, folder / shard)
    return folder


def _folder(name: str) -> Path | None:
    """The folder of that name; None when the name is one of a hub repository."""
    path = Path(name).expanduser()
    places = (path, PROJECT / path) if name.strip() else ()
    found = next((place.resolve() for place in places if place.is_dir()), None)
    if found is None and not _REPOSITORY.fullmatch(name):
        raise InputError(
            f"there is no folder {name!r}, and no repository on the hub can have that name",
            field=_FIELD,
            remedy=f"name a folder (from {Path.cwd()}) or a repository as `owner/name`",
        )
    return found


def _locate_in(folder: Path, name: str) -> ModelReference:
    names = [path.name for path in folder.iterdir() if path.is_file()]
    _check_files(name, names)
    _check_config(name, folder)
    for shard in _shards(name, folder, names):
        _check_weights(name, folder / shard)
    counted = [file for file in names if file.endswith((".safetensors", ".json", ".model", ".txt", ".jinja"))]
    return ModelReference(name=name, revision=None, fingerprint=digest.of_files(folder, counted), metadata=folder)


def _locate_on_hub(config: ModelConfig) -> ModelReference:
    from huggingface_hub import constants

    name = config.name
    if not constants.is_offline_mode():
        what = f"the model {name}" + (f" at {config.revision}" if config.revision else "")
        info = hub.ask(
            what,
            lambda: hub.api().model_info(name, revision=config.revision, timeout=30),
            field=_FIELD,
            patience=PATIENCE,
        )
        _check_files(name, [entry.rfilename for entry in info.siblings or ()])
    # By the configured revision, so that the cache learns which commit it stands for and can be used offline.
    folder = _snapshot(name, config.revision, _METADATA)
    _check_config(name, folder)
    fingerprint = digest.of_json({"repository": name, "commit": folder.name})
    return ModelReference(name=name, revision=folder.name, fingerprint=fingerprint, metadata=folder)


def _snapshot(name: str, revision: str | None, patterns: tuple[str, ...], progress: Progress = SILENT) -> Path:
    from huggingface_hub import snapshot_download

    def download() -> str:
        return snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns=list(_BELOW),
            endpoint=hub.endpoint(),
            library_name="codetune",
            tqdm_class=_bar(progress),
        )

    return Path(hub.ask(f"the model {name}", download, field=_FIELD, patience=PATIENCE))


def _bar(progress: Progress) -> Any:
    """A class of progress bar for `snapshot_download` that draws nothing and tells `progress` the bytes."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # public, but lazily exported

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # There is another bar for bytes on the network; this one counts what is on the disk.
            self._tells = kwargs.get("name") == "huggingface_hub.snapshot_download"
            self._total = 0.0
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0  # a disabled bar does not count by itself
            if self._tells and self.total:
                if self.total != self._total:
                    self._total = self.total
                    progress.begin("downloading the base model", self.total, "bytes")
                progress.update(self.n)
            return None

    return Bar


def _check_files(name: str, files: list[str]) -> None:
    if "config.json" not in files:
        raise InputError(
            f"{name} has no config.json", field=_FIELD, remedy="name a model in the format of transformers"
        )
    if _INDEX not in files and _SINGLE not in files:
        others = sorted(file for file in files if file.endswith((".bin", ".pt", ".pth", ".gguf", ".safetensors")))
        found = f", only {', '.join(others[:3])}" if others else ""
        raise InputError(
            f"{name} has no weights: neither {_SINGLE} nor {_INDEX}{found}",
            field=_FIELD,
            remedy="save the model with save_pretrained(..., safe_serialization=True), or name another one",
        )
    if not any(set(wanted).issubset(files) for wanted in _TOKENIZERS):
        raise InputError(f"{name} has no tokenizer", field=_FIELD, remedy="add tokenizer.json or tokenizer.model to it")


def _check_config(name: str, folder: Path) -> None:
    architectures = _json(name, folder / "config.json").get("architectures") or []
    if not any(str(architecture).endswith(_CAUSAL) for architecture in architectures):
        kinds = ", ".join(map(str, architectures)) or "nothing"
        raise InputError(
            f"{name} is not a causal language model: config.json names {kinds} as architecture",
            field=_FIELD,
            remedy="name a model whose architecture ends in ForCausalLM",
        )


def _shards(name: str, folder: Path, names: list[str]) -> list[str]:
    """The weight files that `from_pretrained` will read; every one of them exists."""
    if _SINGLE in names:
        return [_SINGLE]
    weight_map = _json(name, folder / _INDEX).get("weight_map")
    shards = sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []
    missing = [shard for shard in shards if shard not in names]
    if missing or not shards:
        raise InputError(
            f"{name} lacks weight files that {_INDEX} names: {', '.join(missing[:3]) or 'all'}",
            field=_FIELD,
            remedy="complete the download or the copy of the model",
        )
    return shards


def _check_weights(name: str, path: Path) -> None:
    """Refuse a file that is cut off, or a Git LFS pointer in place of the weights, by what its header announces."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if 8 + length <= size else None
        except ValueError:
            header = None
    ends = [entry["data_offsets"][1] for key, entry in (header or {}).items() if key != "__metadata__"]
    if not ends or 8 + length + max(ends) != size:
        raise InputError(
            f"{path.name} of {name} is no complete safetensors file ({size} bytes)",
            field=_FIELD,
            remedy="download or copy it again (with Git LFS: `git lfs pull`)",
        )


def _json(name: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path.name} of {name} cannot be read: {error}", field=_FIELD, remedy="restore it") from error
    if not isinstance(value, dict):
        raise InputError(f"{path.name} of {name} is no JSON object", field=_FIELD, remedy="restore it")
    return value
