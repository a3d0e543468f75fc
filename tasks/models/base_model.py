"""The base model as configured: where it is, which revision, and how to bring it here.

`locate` reads metadata only (a few kilobytes), so that a refusal comes before anything large is downloaded; `fetch`
brings the weights. Names are a folder (relative to the current one, or to the project for the built-in model) or a
repository on the hub; `HF_ENDPOINT`, `HF_TOKEN` and `HF_HOME` mean what they mean everywhere.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import Field

from artifacts import digest, reading
from artifacts.configuration import Config, GivenPath, Name
from artifacts.errors import InputError
from artifacts.installation import PROJECT
from artifacts.paths import real
from artifacts.progress import SILENT, Progress
from artifacts.schema import Record
from tasks import hub
from tasks.families import LLAMA_LAYERS
from tasks.models.architecture import check_ids, llama_weights, read_config, vocabulary_size
from tasks.models.files import ADAPTER, ADAPTER_CONFIG, GENERATION, PAPERS, TOKENIZER
from tasks.models.safetensors_files import FLOATS, StoredTensor, read_header

_FIELD = "model.name"
_REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
_OURS = "models/"
"""What begins so is a folder, also where it is missing: who has that name on the hub is not asked."""
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
_LEFT_OUT = ("*/*", ADAPTER_CONFIG, ADAPTER)
"""Subfolders hold other formats of the same weights; an adapter beside them would be put on them."""
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
"""Any of these sets of files makes a tokenizer."""
_OBJECTS = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_AGAIN = "download or copy the model again (with Git LFS: `git lfs pull`)"
RETRY_POLICY = hub.RetryPolicy()
"""How long the hub is waited for."""
PINNED = {
    "Qwen/Qwen2.5-Coder-0.5B": "8123ea2e9354afb7ffcc6c8641d1b2f5ecf18301",
    "Qwen/Qwen2.5-Coder-1.5B": "df3ce67c0e24480f20468b6ef2894622d69eb73b",
    "Qwen/Qwen2.5-Coder-3B": "09d9bc5d376b0cfa0100a0694ea7de7232525803",
    "Qwen/Qwen2.5-Coder-7B": "0396a76181e127dfc13e5c5ec48a8cee09938b02",
}
"""The commit of the hub that a model's name stands for, so that a recipe is pinned at every size of a model. To make
one, take the 40 digits that `locate` finds for the branch `main`."""


class ModelConfig(Config):
    """Which model is adapted."""

    name: GivenPath = "codellama/CodeLlama-7b-Instruct-hf"
    """A repository on the hub, or a folder with `config.json`, weights and tokenizer."""
    revision: Name | None = None
    """Branch, tag or commit of a hub repository; it is resolved to a commit when the run starts. None: for
    Qwen2.5-Coder of 0.5B to 7B a commit that is pinned here, for others the newest. A folder has none."""


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
            if config.revision is not None:
                raise InputError(
                    f"{config.name} is a folder, and a folder has no revisions",
                    field="model.revision",
                    remedy="leave it out, or check the folder out as it was then",
                )
            return _locate_in(folder, config.name)
    except OSError as error:
        raise InputError(
            f"the model in {config.name} cannot be read: {error}",
            field=_FIELD,
            remedy="make it readable for the user who runs this, or copy it again",
        ) from error
    return _locate_on_hub(config)


def check_unchanged(model: ModelReference, fingerprint: str | None) -> None:
    """An export's adapter belongs on the weights that it was trained on.

    Args:
        fingerprint: the base model's, as the export records it; None where it does not.

    Raises:
        InputError: the base has other files now. (A commit on the hub has the same for ever.)
    """
    if fingerprint is not None and fingerprint != model.fingerprint:
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
    stored_tensors(model.model_copy(update={"metadata": folder, "revision": None}))
    return folder


def _folder(name: str) -> Path | None:
    """The folder of that name; None when the name is one of a hub repository."""
    with reading.blamed_on(Path(name), field=_FIELD, remedy="name a folder, or a repository as `owner/name`"):
        path = Path(name).expanduser()
        places = (path, PROJECT / path) if name.strip() else ()
        found = next((real(place) for place in places if place.is_dir()), None)
        file = next((place for place in places if place.exists()), None)
    if found is None and (file or name.startswith(_OURS) or not _REPOSITORY.fullmatch(name)):
        raise InputError(
            f"{file} is no folder" if file else f"there is no folder {name!r}, and such a name is not asked of the hub",
            field=_FIELD,
            remedy=f"name a folder (from {Path.cwd()}) or a repository as `owner/name`",
        )
    return found


def _locate_in(folder: Path, name: str) -> ModelReference:
    names = [path.name for path in folder.iterdir() if path.is_file()]
    _check_files(name, names)
    _check_config(name, folder)
    _check_metadata(folder)
    _check_weights(ModelReference(name=name, revision=None, fingerprint="", metadata=folder))
    counted = [file for file in names if file.endswith((".safetensors", ".json", ".model", ".txt", ".jinja"))]
    return ModelReference(name=name, revision=None, fingerprint=digest.of_files(folder, counted), metadata=folder)


def _locate_on_hub(config: ModelConfig) -> ModelReference:
    from huggingface_hub import constants

    name, names = config.name, None
    revision = config.revision or PINNED.get(name)
    if not constants.is_offline_mode():
        what = f"the model {name}" + (f" at {revision}" if revision else "")
        info = hub.ask(
            what,
            lambda: hub.api().model_info(name, revision=revision, timeout=30),
            field=_FIELD,
            policy=RETRY_POLICY,
        )
        names = [entry.rfilename for entry in info.siblings or ()]
        _check_files(name, names)
    # By the configured revision, so that the cache learns which commit it stands for and can be used offline.
    folder = _snapshot(name, revision, _METADATA)
    _check_config(name, folder)
    _check_metadata(folder)
    fingerprint = digest.of_json({"repository": name, "commit": folder.name})
    model = ModelReference(name=name, revision=folder.name, fingerprint=fingerprint, metadata=folder)
    if names is not None or any(folder.glob(_WEIGHTS[0])):
        _check_weights(model, names)
    return model


def _snapshot(name: str, revision: str | None, patterns: tuple[str, ...], progress: Progress = SILENT) -> Path:
    from huggingface_hub import snapshot_download

    def download() -> str:
        return snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns=list(_LEFT_OUT),
            endpoint=hub.endpoint(),
            library_name="codetune",
            tqdm_class=_bar(progress),
        )

    return Path(hub.ask(f"the model {name}", download, field=_FIELD, policy=RETRY_POLICY))


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


def _check_metadata(folder: Path) -> None:
    """What the libraries read besides: of a size that can be read, and objects where they expect objects. And what an
    export takes with it is of the model's own folder: a link could lead to anything on this machine."""
    from huggingface_hub import constants

    if os.path.lexists(folder / ADAPTER_CONFIG):
        raise InputError(
            f"{folder} holds an adapter beside the weights ({ADAPTER_CONFIG}), which would be put on them unasked",
            field=_FIELD,
            remedy="merge it into the weights, or move it and its weights to a folder of their own",
        )
    place = real(folder)
    homes = (place, place.parent.parent / "blobs", real(Path(constants.HF_HUB_CACHE)))
    for path in sorted(folder.iterdir()):
        copied = any(fnmatch(path.name, pattern) for pattern in (*GENERATION, *TOKENIZER, *PAPERS))
        if copied and path.is_symlink() and not any(real(path).is_relative_to(home) for home in homes):
            raise InputError(
                f"{path} is a link to {real(path)}, which is no part of the model",
                field=_FIELD,
                remedy="put a copy of the file in its place, or remove the link",
            )
        large = path.is_file() and path.stat().st_size > reading.MOST_BYTES
        if large and path.suffix in (".json", ".txt", ".model", ".jinja"):
            raise InputError(
                f"{path} has {path.stat().st_size:,} bytes, more than any file of its kind",
                field=_FIELD,
                remedy=_AGAIN,
            )
        if path.is_file() and path.suffix == ".jinja":
            reading.read_text(path, field=_FIELD, remedy=_AGAIN)
    for name in _OBJECTS:
        if (folder / name).is_file():
            reading.read_object(folder / name, field=_FIELD, remedy=_AGAIN)
    if (folder / "generation_config.json").is_file():
        check_ids(folder / "generation_config.json", vocabulary_size(read_config(folder)))


def _check_config(name: str, folder: Path) -> None:
    architectures = read_config(folder).get("architectures") or []
    if not any(architecture.endswith(_CAUSAL) for architecture in architectures):
        raise InputError(
            f"{name} is not a causal language model: config.json names {', '.join(architectures) or 'nothing'} as "
            "architecture",
            field=_FIELD,
            remedy="name a model whose architecture ends in ForCausalLM",
        )


def _shards(name: str, folder: Path, names: list[str]) -> dict[str, list[str] | None]:
    """The weight files that `from_pretrained` will read, each of them in `names`, and the tensors that the index has in
    each; None where there is no index."""
    if _SINGLE in names:
        return {_SINGLE: None}
    places = reading.read_object(folder / _INDEX, field=_FIELD, remedy=_AGAIN).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise InputError(f"{folder / _INDEX} has no weight_map of names of files", field=_FIELD, remedy=_AGAIN)
    shards: dict[str, list[str] | None] = {place: [] for place in sorted(set(places.values()))}
    missing = [shard for shard in shards if shard not in names or not shard.endswith(".safetensors")]
    if missing or not shards:
        raise InputError(
            f"{name} lacks weight files that {_INDEX} names: {', '.join(missing[:3]) or 'all'}",
            field=_FIELD,
            remedy=_AGAIN,
        )
    for tensor, place in places.items():
        (shards[place] or []).append(tensor)
    return shards


def stored_tensors(model: ModelReference, names: Sequence[str] | None = None) -> dict[str, StoredTensor]:
    """Every tensor of the model, from the headers of its files.

    Args:
        names: all files of its repository: of those that are not here the headers are fetched, and no more.

    Raises:
        InputError: a file is no complete safetensors file, or lacks what the index has in it.
        TransientError: the hub does not answer.
    """
    there = [path.name for path in model.metadata.iterdir()] if names is None else list(names)
    found: dict[str, StoredTensor] = {}
    for shard, expected in _shards(model.name, model.metadata, there).items():
        path = model.metadata / shard
        if names is None or path.exists():
            with reading.opened(path, field=_FIELD, remedy=_AGAIN) as file:
                header = read_header(file, os.fstat(file.fileno()).st_size)
        else:
            assert model.revision is not None
            remedy = "name another model, or another revision"
            with reading.blamed_on(Path(model.name, shard), field=_FIELD, remedy=remedy):
                remote = hub.RemoteFile(
                    model.name, model.revision, shard, field=_FIELD, policy=RETRY_POLICY, kind="model"
                )
                header = read_header(io.BufferedReader(remote), remote.size)
        absent = sorted(set(expected or ()) - set(header))
        if absent:
            raise InputError(
                f"{shard} of {model.name} lacks {len(absent)} tensors that {_INDEX} has in it, {absent[0]} first",
                field=_FIELD,
                remedy=_AGAIN,
            )
        found |= header
    return found


def _check_weights(model: ModelReference, names: Sequence[str] | None = None) -> None:
    """Refuse weights that do not make the model that `config.json` describes, before they are brought here."""
    config, stored = read_config(model.metadata), stored_tensors(model, names)
    if config["model_type"] not in LLAMA_LAYERS:
        return  # what other families are made of only transformers knows: preflight builds one
    problem = wrong_weights(stored, llama_weights(config))
    numbers = {int(match[1]) for name in stored if (match := re.match(r"model\.layers\.(\d{1,6})\.", name))}
    layers, last = config["num_hidden_layers"], max(numbers, default=0)
    if not problem and last >= layers:
        problem = f"they have layers up to number {last}, config.json has {layers} of them"
    if problem:
        raise InputError(
            f"the weights of {model.name} are not those that its config.json describes: {problem}",
            field=_FIELD,
            remedy="save it again with transformers: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)",
        )


def wrong_weights(stored: Mapping[str, StoredTensor], needed: Mapping[str, tuple[int, ...]]) -> str:
    """What of the weights that a model needs is missing, misshapen or of another type; empty where nothing is."""
    missing = [name for name in needed if name not in stored]
    inner = [name for name in missing if name.removeprefix("model.") in stored]
    if inner:
        return f"{len(inner)} have names without the prefix `model.`, {inner[0]} first"
    if missing:
        return f"{len(missing)} of {len(needed)} are missing, {missing[0]} first"
    for name, shape in needed.items():
        if stored[name].shape != shape:
            return f"{name} is {list(stored[name].shape)} where it must be {list(shape)}"
        if stored[name].dtype not in FLOATS:
            return f"{name} is stored as {stored[name].dtype}, which is quantized or no weight"
    return ""
