"""Make the pictures of README.md and docs/ from what the demo shows today: `make pictures`.

Runs the demo (what is in the store is reused), photographs the top of its report, and has the test of the dashboard
photograph that. Needs Chromium.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTH, MARGIN = 1360, 20
"""Of the report's picture in pixels: wide enough for its tables, and what is shown below the first of them."""


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("no Chromium is installed; Debian's package is called chromium", file=sys.stderr)
        return 2
    command = [Path(sys.executable).with_name("codetune"), "run", "demo", "--json"]
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
