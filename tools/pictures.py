"""Make the pictures of README.md and docs/ from what the demo shows today: `make pictures`.

Draws the editors' settings as `codetune serve` prints them, runs the demo (what is in the store is reused), photographs
the top of its report, and has the test of the dashboard photograph that. Needs Chromium for the latter two.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTH, MARGIN = 1360, 20
"""Of the report's picture in pixels: wide enough for its tables, and what is shown below the first of them."""
FORMS = "exporting.forms=[merged, gguf-f16]"
"""As `make demo` says it."""
ADDRESS = "http://127.0.0.1:8012"
COLUMNS = 96
HERE = "…"
FILES = {
    "llama.vim": ("vim", f"call plug#begin()\n{HERE}\nPlug 'ggml-org/llama.vim'\ncall plug#end()"),
    "llama.vscode": ("json", f'{{\n  "editor.inlineSuggest.enabled": true,\n  {HERE}\n}}'),
    "Continue": ("yaml", f"name: Local\nversion: 1.0.0\nschema: v1\nmodels:\n{HERE}"),
    "Tabby": ("toml", HERE),
    "Zed": ("json", HERE),
}
"""For each editor, the language of its settings, and a file with a place for what it is told."""


def main() -> int:
    for editor, name in draw_editors(IMAGES).items():
        print(f"{editor}: {name}")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("no Chromium is installed; Debian's package is called chromium", file=sys.stderr)
        return 2
    command = [Path(sys.executable).with_name("codetune"), "run", "demo", "--set", FORMS, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    report = json.loads(done.stdout.splitlines()[-1])["report"]
    photograph(chromium, Path(report).resolve().as_uri(), IMAGES / "report.png")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "tests/flows/test_deployment.py",
            "-k",
            "test_the_page_of_a_run_shows_its_artifacts",
            "--timeout=0",  # drawn without a GPU
        ],
        cwd=ROOT,
        env={**os.environ, "CODETUNE_SCREENSHOT": str(IMAGES / "dashboard.png")},
        check=True,
    )
    return 0


def draw_editors(folder: Path) -> dict[str, str]:
    """Draw the settings of each editor with what `codetune serve` tells it of Qwen2.5-Coder; the pictures' names."""
    from flows.commands.serve import NAME
    from flows.editors import snippets
    from tasks.families import FAMILIES

    marks = next(family.marks for family in FAMILIES if family.marks and family.marks.prefix == "<|fim_prefix|>")
    drawn = {}
    for editor, place, text in snippets(ADDRESS, NAME, marks):
        drawn[editor] = f"editor-{editor.lower().replace('.', '-')}.svg"
        (folder / drawn[editor]).write_text(draw(editor, place.partition(",")[0], text), encoding="utf-8")
    return drawn


def filled_in(editor: str, text: str) -> tuple[str, set[int]]:
    """A settings file with what an editor is told, and the numbers of the lines that are told."""
    before, _, after = FILES[editor][1].partition(HERE)
    first = before.count("\n") + 1
    return f"{before}{text}{after}", set(range(first, first + text.count("\n") + 1))


def draw(editor: str, place: str, text: str) -> str:
    """A settings file as SVG, with the lines that are told marked. It loads no font, as Rich's own would."""
    from rich.console import CONSOLE_SVG_FORMAT, Console
    from rich.syntax import Syntax

    file, told = filled_in(editor, text)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(
        Syntax(
            file,
            FILES[editor][0],
            theme="monokai",
            background_color="default",
            line_numbers=True,
            highlight_lines=told,
        ),
        "",  # the last line would be cut at its feet
    )
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    drawn = console.export_svg(title=f"{editor}: {place}", code_format=form, unique_id="editor")
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def photograph(chromium: str, address: str, picture: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as library:
        sandbox = [] if os.getuid() else ["--no-sandbox"]  # Chromium's own does not work for root
        browser = library.chromium.launch(executable_path=chromium, args=sandbox)
        page = browser.new_page(viewport={"width": WIDTH, "height": WIDTH})
        page.goto(address)
        cut = page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth).length"
        )
        assert not cut, f"{cut} tables of the report are wider than its page"
        table = page.locator("figure.table").first.bounding_box()
        assert table is not None
        below = table["y"] + table["height"] + MARGIN
        page.screenshot(path=picture, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": below})
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
