"""The command line: `codetune run`, and by reference the other commands, which stand in `flows/commands/`.

Deployments, schedules, workers and past runs are Prefect's own command line.

Exit status: 0 done; 1 a stage failed; 2 the configuration or the input cannot be used; 3 preflight refused.
"""

from __future__ import annotations

import ast
import json
import os
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Group, MissingArgumentError, Parameter
from rich.text import Text

from artifacts import faults
from artifacts.errors import CodetuneError, InputError, redacting_secrets
from artifacts.garbage import leave
from artifacts.installation import PACKAGES
from artifacts.paths import shown
from artifacts.redaction import redact
from flows import environment, output, processes
from flows.commands.options import Budget, Changes, Json, Recipe, StorePath, check_stages, configure
from flows.output import Console
from flows.stages import STAGES

if TYPE_CHECKING:
    from cyclopts import Argument

    from artifacts.schema import Completion
    from flows.config import PipelineConfig
    from flows.finetune import RunSummary
    from flows.server import Server

WIDEST = 80
"""Characters of a line of code that is shown."""
LINES_BEFORE = 12
"""Lines before the gap of an example that the server is asked to fill."""
LAST_WORDS = 60.0
"""Seconds for what is left to be told to a server when a command is done."""

app = App(
    name="codetune",
    help="Adapt a code model to your code on one GPU, and prove what it gained.",
    version=lambda: version("codetune"),
    suppress_keyboard_interrupt=False,  # `guarded` says what to do next
    error_formatter=lambda error: _refusal(error),
)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

COMMANDS = {
    "Runs": {
        "run": "flows.cli:run",
        "preflight": "flows.commands.preflight:preflight",
        "why": "flows.commands.why:why",
        "runs": "flows.commands.store:runs",
        "prune": "flows.commands.store:prune",
        "recipes": "flows.commands.recipes:list_recipes",
    },
    "Models": {
        "models": "flows.commands.models:models",
        "promote": "flows.commands.models:promote",
        "rollback": "flows.commands.models:rollback",
        "complete": "flows.commands.complete:complete",
        "serve": "flows.commands.serve:serve",
        "evaluate": "flows.commands.evaluate:evaluate",
        "lineage": "flows.commands.lineage:lineage",
        "push": "flows.commands.push:push",
        "score": "flows.commands.score:score",
    },
    "Deployed runs": {
        "up": "flows.commands.up:up",
        "deploy": "flows.commands.deploy:deploy",
        "worker": "flows.commands.worker:worker",
    },
}
"""What there is, by group, and where it is."""


def _documentation(where: str) -> str | None:
    """What a command says of itself, without importing it: some take seconds to load, and `--help` shows all."""
    module, _, name = where.partition(":")
    path = PACKAGES.joinpath(*module.split(".")).with_suffix(".py")
    found = ast.parse(path.read_text(encoding="utf-8")).body
    return next(
        (ast.get_docstring(one) for one in found if isinstance(one, ast.FunctionDef) and one.name == name), None
    )


for _title, _commands in COMMANDS.items():
    _group = Group.create_ordered(_title)
    for _place, (_name, _where) in enumerate(_commands.items()):
        app.command(_where, name=_name, group=_group, sort_key=_place, help=_documentation(_where))
for _flag in ("--help", "--version"):
    app[_flag].group = "Options"


def run(
    recipe: Recipe,
    *,
    changes: Changes = None,
    budget: Budget = None,
    refresh: Annotated[
        list[str] | None,
        Parameter(
            help=f"Run a stage again even if nothing changed: {', '.join(STAGES)}. Repeatable. Default: none.",
            negative="",
        ),
    ] = None,
    from_stage: Annotated[
        str | None,
        Parameter(name="--from", help="Run this stage again, and everything that follows from it. Default: none."),
    ] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Run the pipeline, or continue it where it stopped.

    Stages whose inputs did not change are reused; an interrupted training continues at its last checkpoint.
    """
    started = time.monotonic()
    config = configure(recipe, changes, store, budget)
    check_stages(refresh or [], "--refresh")
    check_stages([] if from_stage is None else [from_stage], "--from")
    from artifacts.store import Store
    from flows import server

    config.training.check()
    config.exporting.check(config.generation.forms)
    config.workers.check()
    Store.from_environment()  # a store that cannot be written is said before a server is started
    watched = server.start()
    summary, flow_run = _run_flow(config, {"refresh": refresh or [], "from_stage": from_stage}, watched)
    seconds = time.monotonic() - started
    if as_json:
        stages_done = {name: stage.model_dump() for name, stage in summary.stages.items()}
        print(
            json.dumps(
                {
                    "flow_run": flow_run,
                    "state": "completed",
                    "seconds": round(seconds, 2),
                    "stages": stages_done,
                    "report": summary.report,
                    "model": summary.model,
                    "verdict": summary.verdict,
                    "version": summary.version,
                    "reasons": summary.reasons,
                    "verdicts": summary.verdicts,
                    "measured": {form: one.model_dump() for form, one in summary.measured.items()},
                    "held_out_by": summary.held_out_by,
                    "proves": summary.proves,
                }
            )
        )
    else:
        given = [*(("--set", change) for change in changes or ()), ("--budget", budget), ("--store", store)]
        _say_where(summary, seconds, watched, [recipe, *(f"{name}={value}" for name, value in given if value)])
    return 0


def main() -> NoReturn:
    """The entry point of the `codetune` command."""
    output.in_utf8()
    output.settle()
    environment.apply(quiet=True)
    status = guarded(sys.argv[1:])
    if reason := output.lost():
        _say_error(f"standard output cannot be written: {reason.strerror}")
        status = status or 1
    processes.end_within(LAST_WORDS)
    leave(status)


def guarded(arguments: list[str]) -> int:
    """Run a command line; what a person can mend is said without a traceback. Returns the exit status."""
    try:
        with redacting_secrets():
            status = app(arguments, exit_on_error=False, result_action="return_value", error_console=errors)
        return status if isinstance(status, int) else 0
    except CycloptsError:
        return 2  # cyclopts has said what is wrong
    except CodetuneError as error:
        _say_error(str(error))
        return error.exit_status
    except ValueError as error:
        wrong = environment.wrong_setting(error)
        if wrong is None:
            raise
        _say_error(str(wrong))
        return wrong.exit_status
    except OSError as error:
        said = faults.explain(error) or faults.unknown(error)
        _say_error(str(said))
        return said.exit_status
    except KeyboardInterrupt:
        errors.print("interrupted; run the same command again to continue")
        return 130


def _run_flow(config: PipelineConfig, again: dict[str, Any], server: Server) -> tuple[RunSummary, str]:
    from flows.finetune import DONE, finetune
    from flows.terminal import Terminal
    from tasks.running.run import OBSERVERS

    done: list[RunSummary] = []
    DONE.set(done)
    try:
        with server.ready(120 if server.temporary else 10), Terminal() as terminal:
            terminal.console.print(f"[dim]watch at {server.page('/runs')}[/]")
            OBSERVERS.set((terminal,))
            state: Any = finetune(config, **again, return_state=True)
            return state.result(), str(state.state_details.flow_run_id)
    except Exception as error:
        if not done:
            raise
        said = str(error).partition("\n")[0]
        errors.print(f"all is done, but the server at {server.address} was not told: {said}", markup=False)
        return done[0], ""


def _say_where(summary: RunSummary, seconds: float, server: Server, again: list[str]) -> None:
    from tasks.gguf import library

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"\n[bold]done in {seconds:.0f} s[/]")
    console.print(f"  report     {summary.report}", markup=False)
    console.print(f"  model      {summary.model}", markup=False)
    version = f", v{summary.version}" if summary.version else ""
    console.print(f"  verdict    {summary.verdict}{version}: {' '.join(summary.reasons)}", markup=False)
    command = os.path.relpath(Path(sys.executable).with_name("codetune"))
    console.print(f"  dashboard  {f'{command} up' if server.temporary else server.page('/runs')}", markup=False)
    if example := summary.example:
        texts = {"before": example.base, "now": example.tuned, "the file": example.truth}
        console.print(f"  example    in {example.path}, after `{_line(example.prompt, -1)}`", markup=False)
        for name, text in texts.items():
            console.print(f"             {name:<9} {_line(text, 0)}", markup=False)
    model = [] if summary.verdict == "promote" else [str(summary.model)]
    served = [f"{command} {shlex.join(['serve', *model, *(one for one in again if one.startswith('--store='))])}"]
    if not any(form.startswith("gguf-") for form in summary.forms):
        forms = f"--set=exporting.forms=[merged, {'gguf' if library.installed() else 'gguf-f16'}]"
        served.insert(0, f"{command} run {shlex.join([*again, forms])}")
    if summary.example:
        served.append(_request(summary.example))
    console.print("  serve      " + "\n             ".join(served), markup=False)


def _request(example: Completion) -> str:
    """What asks the server for an example, with the lines next to the gap."""
    from flows import llama

    before = "".join(redact(example.prompt).splitlines(keepends=True)[-LINES_BEFORE:])
    after = redact(example.suffix).partition("\n")[0]
    asked = {"input_prefix": before, "input_suffix": f"\n{after}" if after else "", "n_predict": 16, "temperature": 0}
    return f"curl http://{llama.HOST}:{llama.PORT}/infill -d {shlex.quote(json.dumps(asked))}"


def _line(text: str, place: int) -> str:
    """The first or last line of a text that is not blank."""
    lines = [line.strip() for line in redact(text).splitlines() if line.strip()] or [""]
    return lines[place] if len(lines[place]) <= WIDEST else lines[place][: WIDEST - 1] + "…"


def _refusal(error: CycloptsError) -> Text:
    """What is said of a command line that cannot be read. Of what was forgotten cyclopts tells the name alone, so here
    it is said what that means, and what else the command needs."""
    argument, command = error.argument, " ".join(error.command_chain or ())
    if not isinstance(error, MissingArgumentError) or argument is None:
        problem = shown(str(error), 500)
        problem = problem if problem.endswith("...") else problem.removesuffix(".")
        remedy = f"`{' '.join(['codetune', *(error.command_chain or ()), '--help'])}` says what there is"
        return _error(str(InputError(problem, remedy=remedy)))
    there = app[command].assemble_argument_collection()
    needed = [one for one in there if one.required or one.name == argument.name]
    usage = [_placeholder(one) if one.field_info.is_positional else f"{one.name} {_placeholder(one)}" for one in needed]
    said = InputError(
        "it is missing" if argument.required else "its value is missing",
        field=_placeholder(argument) if argument.field_info.is_positional else argument.name,
        remedy=f"`{' '.join(['codetune', command, *usage])}`. {argument.parameter.help}",
    )
    return _error(str(said))


def _placeholder(argument: Argument) -> str:
    return argument.name.strip("-").upper()


def _error(problem: str) -> Text:
    return Text.assemble(("error:", "bold red"), " ", problem)


def _say_error(problem: str) -> None:
    errors.print(_error(problem))
