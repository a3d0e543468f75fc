"""`codetune serve`: a model for the editor, by llama.cpp's server."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.commands.options import PORTS, THREADS, TOKENS, Json, Model, StorePath, use_store
from flows.commands.store import in_words
from flows.llama import PORT
from flows.output import Console

if TYPE_CHECKING:
    from flows.editors import Snippet


NAME = "codetune"
"""What programs call the model: the same for every version, so that no editor has to be told of a new one."""


def serve(
    model: Model = "champion",
    *,
    form: Annotated[
        str | None, Parameter(help="Which form of the export: gguf-q4_k_m, … Default: the smallest that it has.")
    ] = None,
    port: Annotated[int, Parameter(validator=PORTS, help="Where to listen, on this machine alone.")] = PORT,
    context: Annotated[
        int, Parameter(validator=TOKENS, help="Tokens that the model sees at most; more takes more memory.")
    ] = 8192,
    threads: Annotated[
        int | None, Parameter(validator=THREADS, help="Processor threads. Default: as many as llama.cpp takes.")
    ] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Serve a model to editors on this machine, until Ctrl-C.

    llama.cpp's server, OpenAI-compatible, with /infill for code. It prints what to put into the editor.
    """
    use_store(store)
    from artifacts.store import Store
    from flows import editors, llama, naming
    from tasks.families.marks import ALL
    from tasks.gguf import server

    server.check_installed()
    export, manifest = naming.exported(model, Store.to_read())
    name, file = llama.file_of(export, manifest, form)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), llama.listening(port) as listening:
        naming.check_intact(export, f"{name}/")
        with server.loaded(server.Served(file, NAME, context, threads)) as place:
            with server.client(place) as client:
                seen = client.get("/props").json()["default_generation_settings"]["n_ctx"]

                def count(text: str) -> int:
                    return len(client.post("/tokenize", json={"content": text}).json()["tokens"])

                marks = editors.find_marks(ALL, count)
            address = f"http://{llama.HOST}:{port}"
            shown = editors.snippets(address, NAME, marks)
            if as_json:
                snippets = {one.editor: one.text for one in shown}
                facts = {"address": address, "file": str(file), "form": name, "context": seen, "snippets": snippets}
                print(json.dumps(facts), flush=True)
            else:
                _say(f"serving {model} ({name}, {in_words(file.stat().st_size)}, context {seen:,}) at {address}", shown)
            llama.run(place, listening)
    return 0


def _say(head: str, shown: list[Snippet]) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(head)
    for editor, place, text in shown:
        console.print(f"\n{editor}: in {place}")
        console.print("\n".join(f"  {line}" for line in text.splitlines()))
    if not shown:
        console.print("this model has no fill-in-the-middle marks: /v1/completions and /v1/chat/completions answer")
    console.print("\nCtrl-C ends it")
