"""`codetune complete`: base and tuned next to each other in the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from artifacts.errors import InputError
from flows.commands.options import LINES, TOKENS, Json, Model, StorePath, given_path, use_store

if TYPE_CHECKING:
    from rich.text import Text

    from tasks.generation.completing import Answers, CompletionRequest


def complete(
    model: Model,
    *,
    prompt: Annotated[str | None, Parameter(help="Text to go on from; `-` is standard input. Default: --file.")] = None,
    suffix: Annotated[
        str | None, Parameter(help="Text after the gap, which the models then fill in. Default: none; they go on.")
    ] = None,
    file: Annotated[
        Path | None, Parameter(converter=given_path, help="A file with a gap to fill. Default: the text of --prompt.")
    ] = None,
    line: Annotated[
        int | None,
        Parameter(validator=LINES, help="With --file: the line to leave out and fill in, from 1. Default: none."),
    ] = None,
    new_tokens: Annotated[int, Parameter(validator=TOKENS, help="Longest answer, in tokens.")] = 64,
    quantization: Annotated[
        Literal["int8", "nf4", "none"], Parameter(help="What the base weights are quantized to.")
    ] = "none",
    form: Annotated[
        str | None,
        Parameter(
            help="Ask this GGUF form of the tuned model with llama.cpp, as an editor does, and show the answer as it "
            "comes. Default: base and tuned, with transformers."
        ),
    ] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Let base and tuned go on with a text, or fill in a line of a file."""
    use_store(store)
    question, truth = _question(prompt, suffix, file, line)
    if form is not None:
        return _as_served(model, form, question, truth, new_tokens, as_json)
    from artifacts.store import Store
    from flows import naming
    from tasks.generation import completing

    answers = completing.complete(
        naming.folder_of(model, Store.to_read()), question, new_tokens=new_tokens, quantization=quantization
    )
    if as_json:
        left_out = {"before": answers.left_out_before, "after": answers.left_out_after}
        print(json.dumps({"base": answers.base, "tuned": answers.tuned, "truth": truth, "left_out": left_out}))
    else:
        _show(question, answers, truth)
    return 0


def _as_served(
    model: str, form: str, question: CompletionRequest, truth: str | None, new_tokens: int, as_json: bool
) -> int:
    """What an editor gets from `codetune serve`, on the screen piece by piece."""
    from artifacts.store import Store
    from flows import llama, naming
    from flows.output import Console
    from tasks.gguf import server

    server.check_installed()
    export, manifest = naming.exported(model, Store.to_read())
    name, file = llama.file_of(export, manifest, form)
    naming.check_intact(export, f"{name}/")
    asked = {"n_predict": new_tokens, "temperature": 0, "stop": ["\n"] if question.single_line else []}
    console, pieces = Console(highlight=False, markup=False, soft_wrap=True), []
    with server.loaded(server.Served(file, name, llama.CONTEXT)) as place:
        for piece in llama.answer(place, question.before, question.after, asked):
            pieces.append(piece)
            if not as_json:
                console.print(piece, end="")
    if as_json:
        print(json.dumps({"tuned": "".join(pieces), "truth": truth, "form": name}))
        return 0
    console.print()
    if truth is not None:
        console.print(f"in the file: {truth}")
    return 0


def _question(
    prompt: str | None, suffix: str | None, file: Path | None, line: int | None
) -> tuple[CompletionRequest, str | None]:
    """What is asked, and what stands there in truth where that is known."""
    from tasks.generation.completing import CompletionRequest, read_gap

    if (prompt is None) == (file is None):
        raise InputError("give either --prompt or --file with --line", field="--prompt")
    if prompt is not None:
        if line is not None:
            raise InputError("--line goes with --file", field="--line", remedy="leave it out, or name a file")
        return CompletionRequest(_standard_input() if prompt == "-" else prompt, suffix), None
    assert file is not None
    if suffix is not None:
        raise InputError("--suffix goes with --prompt", field="--suffix", remedy="leave it out: the file has its own")
    if line is None:
        raise InputError("which line is to be filled in?", field="--line", remedy="give its number, from 1")
    before, truth, after = read_gap(file, line)
    return CompletionRequest(before, after, single_line=True), truth


def _standard_input() -> str:
    import sys

    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise InputError(
            "standard input is not UTF-8 text", field="--prompt", remedy="convert it to UTF-8 first"
        ) from error


LINES_SHOWN = 6


def _show(question: CompletionRequest, answers: Answers, truth: str | None) -> None:
    """What stands before the gap, both answers side by side with their differences marked, and the truth."""
    from rich.table import Table
    from rich.text import Text

    from flows.output import Console

    console = Console(highlight=False)
    before = question.before.rstrip("\n").split("\n")[-LINES_SHOWN:]
    console.print(Text("\n".join(before), style="dim"))
    table = Table("base", "tuned", expand=True, show_lines=False)
    base, tuned = _marked(answers)
    table.add_row(base, tuned)
    console.print(table)
    if truth is not None:
        console.print(Text("in the file: ", style="bold") + Text(truth))
    if question.after:
        console.print(Text("\n".join(question.after.split("\n")[:LINES_SHOWN]), style="dim"))
    if answers.base == answers.tuned:
        console.print("both say the same")
    sides = (("first", answers.left_out_before), ("last", answers.left_out_after))
    if left_out := " and ".join(f"the {which} {count:,} characters" for which, count in sides if count):
        console.print(f"left out: {left_out}; the models see {answers.context:,} tokens, the answer's included")


def _marked(answers: Answers) -> tuple[Text, Text]:
    """Both answers, what only one of them has in colour."""
    import re
    from difflib import SequenceMatcher

    from rich.text import Text

    left, right = (re.findall(r"\w+|\s+|.", answer) for answer in (answers.base, answers.tuned))
    shown = Text(), Text()
    for what, start, end, other_start, other_end in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        shown[0].append("".join(left[start:end]), style="" if what == "equal" else "yellow")
        shown[1].append("".join(right[other_start:other_end]), style="" if what == "equal" else "cyan")
    return shown
