"""Bad recipes, settings and command lines by the thousand, each from a number: the same number makes the same one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from flows.config import PipelineConfig
from flows.recipes import names

SCHEMA = PipelineConfig.model_json_schema()

VALUES = (
    *("inf", "-inf", "nan", ".inf", "-.inf", ".nan", "-1", "0", "1e308", "1e-308", "1e400", "-0.0", "007", "0o17"),
    *("1000000000000", "9" * 400, "9" * 5_000, "-" + "9" * 5_000, "0x_", "0x", "1_0", "1:30", "2026-02-30", "1.5"),
    *("true", "no", "on", "~", "null", "", " ", "''", "' '", "[]", "{}", "[[]]", "[{}]", "{a: }", "{a: 1, a: 2}"),
    *("!!timestamp x", "!!binary x", "!!set {a}", "!!omap [a]", "!!python/name:os.system", "!x y", "&a b", "*a"),
    *("{<<: {a: 1}}", "{<<: [1]}", "<<", "{[a]: b}", "{1: 2}", "{null: 2}", "[" * 300, "{a: " * 300, "'", '"', "- a"),
    *('"\\0"', '"\\ud800"', "\ud800", "\x07", "a\tb", "\u2028", "\ufeff", "é" * 200, "a" * 5_000, "/" * 5_000),
    *("~nosuchuser", "~nosuchuser/x", "/dev/zero", "/x #2", "# x", "---", "...", "%TAG", "@", "`", "|", ">", "? a"),
    *("auto", "all-linear", "[a, 1, null]", "{kind: local}", "{kind: x}", "{kind: [a]}", "{kind: local, paths: [[]]}"),
    *("[a]" * 3, "a: b: c", "{paths: }", "0 0", "1,2", "[1,2", "2 # two", "{max_steps: 1e3}", "[0x1, 010]"),
)
"""What somebody could write for any setting."""


def settings(schema: dict[str, Any] = SCHEMA, place: str = "") -> Iterator[str]:
    """The dotted name of every setting, and of every section."""
    if "$ref" in schema:
        yield from settings(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], place)
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from settings(part, place)
    for name, part in schema.get("properties", {}).items():
        yield f"{place}{name}"
        yield from settings(part, f"{place}{name}.")


SETTINGS = sorted(set(settings()))


def change(number: int) -> str:
    """What stands after `--set`; the first ones put every value to every setting."""
    if number < len(SETTINGS) * len(VALUES):
        # a step that shares no factor with either length, so that a few numbers in a row differ in both
        return f"{SETTINGS[number % len(SETTINGS)]}={VALUES[(number * 7 + number // len(SETTINGS)) % len(VALUES)]}"
    chance = random.Random(number)
    name = chance.choice(
        [*SETTINGS, "", ".", "a", "a" * 300, "recipe", "<<", "\ud800", "training.", ".".join("a" * 99)]
    )
    joined = chance.choice(("", " ", ",", ": ", "\n"))
    return f"{name}{chance.choice('==:')}{joined.join(chance.choices(VALUES, k=chance.randint(1, 4)))}"


def recipe(number: int) -> bytes:
    """A recipe that comes with codetune, spoiled in a few places."""
    chance = random.Random(number)
    text = files("flows.recipes").joinpath(f"{chance.choice(names())}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(lines) + 1)
        match chance.randrange(8):
            case 0:
                lines[at:at] = lines[chance.randrange(len(lines) + 1) :][: chance.randint(1, 5)]
            case 1:
                del lines[at : at + chance.randint(1, 3)]
            case 2:
                lines.insert(at, f"{chance.choice(SETTINGS).partition('.')[0]}: {chance.choice(VALUES)}\n")
            case 3:
                lines.insert(at, f"{' ' * chance.randint(0, 5)}{chance.choice(VALUES)}\n")
            case 4:
                name = chance.choice(SETTINGS).rpartition(".")[2]
                lines.insert(at, f"{' ' * chance.choice((2, 4))}{name}: {chance.choice(VALUES)}\n")
            case 5:
                lines = [line.replace(chance.choice(":-[],#"), chance.choice(VALUES), 1) for line in lines]
            case 6:
                lines.insert(at, f"x{at}: &a{at} [{'*a1, ' * chance.randint(0, 9)}{chance.choice(VALUES)}]\n")
            case _:
                lines.insert(at, "\t" * chance.randint(1, 3) + "a: b\n")
    data = "".join(lines).encode(chance.choice(("utf-8",) * 9 + ("utf-16",)), "surrogatepass")
    for _ in range(chance.choice((0, 0, 1, 9))):
        at = chance.randrange(len(data) + 1)
        data = data[:at] + chance.randbytes(chance.randint(0, 3)) + data[at + chance.randint(0, 3) :]
    return data


WORDS = (
    *("demo", "v1", "champion", "training", "x", "1", "deadbeef", "./x", "{tmp}", "{tmp}/f", "{tmp}/r.yaml", "{tmp}/l"),
    *("--json", "--all", "--check", "--dry-run", "--settings", "--help", "--version", "--", "-", "--no-json", "-h"),
    *("--set", "--set=training.max_steps=1", "--refresh=", "--refresh=x", "--from=", "--from=x", "--store=", "--k=1"),
    *("--store={tmp}/f/x", "--reason=x", "--reason=", "--keep=1", "--keep=-1", "--keep=x", "--line=0", "--k=", "--k=x"),
    *("--seconds=nan", "--seconds=1e999", "--workers=0", "--completions={tmp}/f", "--completions=/dev/zero", "--k=-1"),
    *("--prompt=x", "--file={tmp}", "--file={tmp}/fifo", "--line=1", "--new-tokens=0", "--quantization=int3"),
    *(
        "--recipe=",
        "--recipe=demo",
        "--suite=",
        "--suite={tmp}/fifo",
        "--fast",
        "--ſet",
        "🙂",
        "\x1b[31m",
        "[bold]",
        "[/]",
    ),
)
"""What may stand behind a command; `{tmp}` is a folder with a file, a FIFO, a broken recipe and a link to itself."""
SAFE = ("why", "lineage", "models", "promote", "rollback", "runs", "prune", "complete", "score", "recipes", "preflight")
"""Commands that start no server, whatever is given to them."""


def line(number: int) -> list[str]:
    """A command line."""
    chance = random.Random(number)
    words = [chance.choice([*WORDS, *VALUES]) for _ in range(chance.randint(0, 5))]
    words = [word for word in words if "\0" not in word]
    return [chance.choice([*SAFE, *SAFE, "nothing", "", "--help"]), *words]
