"""llama.cpp's own server, which the package `xllamacpp` has as a library, on a socket that only its user opens.

It also says what it understands of a file, for checks where the library of `llama-cpp-python` is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import httpx

from artifacts.errors import InputError, StageError

PACKAGE = "xllamacpp"
BATCH = 1024
"""Tokens of prefix and suffix that `/infill` takes; what is left of the context is for other files."""
REUSED = 256
"""Tokens in a row from which what is computed of another file is used again, wherever it stands now."""
LONGEST = 64
"""Characters of a folder in which a socket may be: its whole name has 107 at most."""
_QUIET = 1  # llama.cpp's errors and nothing else
_FORCED = 1000.0
"""Added to a token's logit, it is the next one."""


@dataclass(frozen=True)
class Served:
    """What is served, and how."""

    file: Path
    """GGUF."""
    name: str
    """How programs see it in `/v1/models`."""
    context: int
    """Tokens, at most; the model's own context where that is shorter."""
    threads: int | None = None
    """None for as many as llama.cpp takes."""


def check_installed() -> None:
    """Whether the server is there.

    Raises:
        InputError: it is not.
    """
    if find_spec(PACKAGE) is None:
        raise InputError(
            "llama.cpp's server comes with the package xllamacpp, which is not installed",
            remedy="pip install 'codetune[serve]'",
        )


@contextmanager
def loaded(served: Served) -> Iterator[Path]:
    """llama.cpp's server with the model in it: the socket that it listens on.

    Raises:
        StageError: llama.cpp cannot load the file.
    """
    import xllamacpp

    long = len(gettempdir()) > LONGEST
    with TemporaryDirectory(prefix="codetune-", dir="/tmp" if long else None) as folder:
        place = Path(folder) / "llama.sock"
        params = xllamacpp.CommonParams()
        params.model.path = str(served.file)
        params.model_alias = {served.name}
        params.hostnames = [str(place)]
        params.n_ctx, params.n_parallel = served.context, 1
        params.n_batch = params.n_ubatch = min(BATCH, served.context // 2)
        params.n_cache_reuse = REUSED
        params.ui = params.endpoint_slots = params.endpoint_metrics = False
        params.verbosity = _QUIET
        if served.threads is not None:
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = served.threads
        try:
            server = xllamacpp.Server(params)
        except Exception as error:
            raise StageError(
                f"llama.cpp cannot load {served.file}: {error}",
                remedy="take another form with --form, or less memory with --context",
            ) from error
        try:
            yield place
        finally:
            del server


def client(place: Path) -> httpx.Client:
    """To ask the server itself."""
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), base_url="http://llama", timeout=60)


class ServedModel:
    """A model in the server, asked what the server makes of it.

    Args:
        client: see `client`.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        told = client.get("/v1/models").json()["data"][0]["meta"]
        self.size = int(told["n_vocab"])
        """Of the vocabulary."""
        self.context = int(told["n_ctx_train"])
        """Tokens that the file says the model has a context of."""
        self._letter = self.tokenize("a")[-1]

    def tokenize(self, text: str, *, begins: bool = False) -> list[int]:
        """The ids of a text as plain text, with BOS only where it `begins` and the file says so."""
        found = self._ask("/tokenize", content=text, add_special=begins, parse_special=False)["tokens"]
        return [int(index) for index in found]

    def ends(self, index: int) -> bool:
        """Whether it stops at a token."""
        found = self._ask("/completion", prompt="x", n_predict=2, logit_bias=[[index, _FORCED]])
        return bool(found["stop_type"] == "eos")

    def infilling(self, before: str, after: str) -> str:
        """The prompt that it makes of a gap, its marks and the beginning of a text spelled out.

        Raises:
            StageError: it knows no marks.
        """
        return str(self._ask("/infill", input_prefix=before, input_suffix=after, n_predict=1)["prompt"])

    def spelled(self, ids: Sequence[int]) -> str:
        """The text of tokens, marks and ends spelled out."""
        return str(self._ask("/detokenize", tokens=list(ids))["content"])

    def likeliest(self, ids: Sequence[int], many: int) -> dict[int, float]:
        """The logarithms of the probabilities of what is likeliest after some tokens, by id, in nats."""
        # It tells them only beside text: of an end it makes none, and of a byte none before its character is whole. So
        # the next token is forced to be a letter, which changes nothing of what is told.
        asked = {"n_predict": 1, "n_probs": many, "temperature": 0, "logit_bias": [[self._letter, _FORCED]]}
        found = self._ask("/completion", prompt=list(ids), **asked)["completion_probabilities"][0]["top_logprobs"]
        return {int(one["id"]): float(one["logprob"]) for one in found}

    def _ask(self, path: str, **asked: Any) -> Any:
        answer = self._client.post(path, json=asked)
        if answer.status_code != 200:
            raise StageError(
                f"llama.cpp's server refuses a request to {path}: {answer.json()['error']['message']}",
                field="exporting.forms",
                remedy="export other forms than GGUF; llama.cpp would use this one wrong",
            )
        return answer.json()
