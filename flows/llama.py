"""llama.cpp's own server for editors on this machine, behind an entrance.

The server listens on a socket in a folder that only its user opens (`tasks.gguf.server`). Requests over the network
come to the entrance first (`flows.door.Entrance`). It lets in no page of another site, which llama.cpp would, only
requests that a completion needs, and no endless ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from artifacts.errors import InputError
from artifacts.schema import ExportedModel
from artifacts.store import Manifest
from flows.door import Entrance, Message, Receive, Scope, Send
from tasks.gguf import server

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
PORT = 8012
"""Unless another is asked for: where llama.vim and llama.vscode look."""
FORMS = "gguf-"
"""What the names of the forms begin with that it reads."""
CONTEXT = 8192
"""Tokens that a model sees, unless it is told otherwise or has a shorter context."""
LARGEST = 8 << 20
"""Bytes of a request."""
AT_ONCE = 64
"""Connections."""
ROUTES = {
    *(("GET", path) for path in ("/health", "/v1/health", "/models", "/v1/models", "/props")),
    *(("POST", path) for path in ("/infill", "/completion", "/completions", "/v1/completions")),
    *(("POST", path) for path in ("/chat/completions", "/v1/chat/completions", "/apply-template")),
    *(("POST", path) for path in ("/tokenize", "/detokenize")),
}
"""What may be asked."""
_KEPT = (b"content-type", b"authorization", b"accept")


def listening(port: int) -> socket.socket:
    """A socket that listens on the loopback interface.

    Raises:
        InputError: the port is taken.
    """
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
        found.listen(AT_ONCE)
    except OSError as error:
        found.close()
        raise InputError(
            f"cannot listen at {HOST}:{port}: {(error.strerror or str(error)).lower()}",
            field="--port",
            remedy="end the program that listens there, or take another port with --port",
        ) from error
    return found


def file_of(export: ExportedModel, manifest: Manifest, form: str | None) -> tuple[str, Path]:
    """The form of an export that is served, and its file.

    Raises:
        InputError: it has none.
    """
    there = {
        one.name: one.bytes
        for one in export.forms
        if one.name.startswith(FORMS) and f"{one.name}/{_named(one.name)}" in manifest.files
    }
    if not there:
        raise InputError(
            "this export has no GGUF file, which llama.cpp reads",
            field="MODEL",
            remedy="run the recipe again with --set 'exporting.forms=[merged, gguf]'",
        )
    if form is not None and form not in there:
        raise InputError(f"this export has no form “{form}”", field="--form", remedy=f"use one of {', '.join(there)}")
    name = form or min(there, key=lambda one: there[one])
    return name, export.path / name / _named(name)


def _named(form: str) -> str:
    """The file of a form with the whole model, as `tasks.exporting.forms` calls it."""
    return f"model-{form.removeprefix(FORMS)}.gguf"


def answer(place: Path, before: str, after: str | None, asked: dict[str, Any]) -> Iterator[str]:
    """The text in a gap, or after a text, as it is made.

    Args:
        asked: what llama.cpp's server takes besides.

    Raises:
        InputError: it refuses: the model has no marks to fill in with, or the text is too long.
    """
    text = {"prompt": before} if after is None else {"input_prefix": before, "input_suffix": after}
    path = "/completion" if after is None else "/infill"
    with server.client(place) as asking, asking.stream("POST", path, json={**text, **asked, "stream": True}) as told:
        if told.status_code != 200:
            told.read()
            raise InputError(
                f"llama.cpp refuses the prompt: {told.json()['error']['message']}",
                field="--prompt",
                remedy="give less text, or leave out what follows the gap",
            )
        for line in told.iter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: ")).get("content", "")


def run(place: Path, port: socket.socket) -> None:
    """Answer requests until a signal ends it."""
    import uvicorn

    relay = Relay(place)
    settings = uvicorn.Config(
        Entrance(relay, []),
        log_level=logging.WARNING,
        access_log=False,
        lifespan="off",
        ws="none",
        limit_concurrency=AT_ONCE,
        timeout_graceful_shutdown=2,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[port])


class Relay:
    """An application that hands requests on to a server on a socket, and its answer back as it comes. A client that
    hangs up ends the work on its answer, as llama.cpp does it itself: editors ask anew with every key.

    Args:
        place: the socket.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if (scope["method"], scope["path"]) not in ROUTES:
            return await _say(send, 404, "there is nothing here")
        body = await _body(receive)
        if body is None:
            return await _say(send, 413, f"a request has at most {LARGEST:,} bytes")
        working = asyncio.create_task(self._answer(scope, body, send))
        leaving = asyncio.create_task(_left(receive))
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        for task in (working, leaving):
            task.cancel()
        for outcome in await asyncio.gather(working, leaving, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.warning("an answer broke off: %s", outcome)
        return None

    async def _answer(self, scope: Scope, body: bytes, send: Send) -> None:
        if self._client is None:
            transport = httpx.AsyncHTTPTransport(uds=str(self._place))
            self._client = httpx.AsyncClient(transport=transport, base_url="http://llama", timeout=None)
        headers = [(name, value) for name, value in scope["headers"] if name in _KEPT]
        async with self._client.stream(scope["method"], scope["path"], headers=headers, content=body) as answer:
            kind = answer.headers.get("content-type", "application/json").encode()
            start: Message = {"type": "http.response.start", "status": answer.status_code}
            await send({**start, "headers": [(b"content-type", kind)]})
            async for part in answer.aiter_bytes():
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _body(receive: Receive) -> bytes | None:
    """What was sent; None where it is too much."""
    body = b""
    while True:
        message: Any = await receive()
        if message["type"] != "http.request":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > LARGEST:
            return None
        if not message.get("more_body", False):
            return body


async def _left(receive: Receive) -> None:
    """Returns when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _say(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode(), "more_body": False})
