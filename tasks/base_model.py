"""The base model as configured: where it is, which revision, and how to bring it here.

`locate` reads metadata only (a few kilobytes), so that a refusal comes before anything large is downloaded; `fetch`
brings the weights. Names are a folder (relative to the current one, or to the project for the built-in model) or a
repository on the hub; `HF_ENDPOINT`, `HF_TOKEN` and `HF_HOME` mean what they mean everywhere.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from artifacts.configuration import Config
from artifacts.progress import SILENT, Progress
from artifacts.schema import Record


class ModelConfig(Config):
    """Which model is adapted."""

    name: str = "codellama/CodeLlama-7b-Instruct-hf"
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
    raise NotImplementedError


def fetch(model: ModelReference, progress: Progress = SILENT) -> Path:
    """Bring the weights (safetensors) here. Returns a folder for `from_pretrained`.

    Raises:
        TransientError: the hub does not answer.
    """
    raise NotImplementedError
