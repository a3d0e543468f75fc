"""Figures in one restrained style, as SVG whose bytes depend on nothing but what is drawn.

    with figures.drawing(7.2, 3.0) as figure:
        axes = figure.subplots()
        axes.plot(steps, losses, color=figures.TUNED)
        axes.set_xlabel("optimizer step")
        svg = figures.to_svg(figure)

Drawn on `Figure` objects without pyplot: no window system, no global list of figures. Text becomes outlines, so that
a page shows the same everywhere. The SVG carries a dark scheme of its own (`prefers-color-scheme`).
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1f2933"
"""Text and whatever must be read."""
MUTED = "#6b7785"
"""Tick labels, reference lines, notes."""
GRID = "#e4e8ec"
"""Grid lines and frames."""
PAPER = "#ffffff"
"""The background."""
BASE = "#8d99a8"
"""The base model, the plan: what is compared with."""
TUNED = "#0b7285"
"""The tuned model, the measurement: what it is about."""
ACCENT = "#c2600a"
"""A third series, or a warning."""
CYCLE = (TUNED, ACCENT, BASE, "#5f6f9e", "#7a8c3a", "#9c4f7a")
"""Series colours in order of use."""

_DARK = {INK: "#e3e8ed", MUTED: "#9aa6b2", GRID: "#323a43", PAPER: "#181c21", BASE: "#7f8b99", TUNED: "#3fb4c8"}
_DARK[ACCENT] = "#f0984a"

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a name with a dollar sign is no formula
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same outlines on every machine
    "font.size": 9.0,
    "text.color": INK,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",
    # element ids are hashes of the content with this salt instead of random numbers
    "svg.hashsalt": "codetune",
}

_lock = threading.RLock()
_THEIRS = "matplotlibrc"
"""Settings that matplotlib reads when it is imported: from the current folder first, then from the person's own."""


@contextmanager
def drawing(width: float = 7.2, height: float = 3.0) -> Iterator[Figure]:
    """A figure of `width` × `height` inches; draw on it and call `to_svg` within the block.

    matplotlib's settings are one global table, so one thread draws at a time.
    """
    matplotlib = _matplotlib()
    from cycler import cycler
    from matplotlib.figure import Figure

    style = {**_STYLE, "axes.prop_cycle": cycler(color=CYCLE)}
    with _lock, matplotlib.rc_context():
        matplotlib.rcdefaults()  # the user's own matplotlibrc must not change the bytes
        matplotlib.rcParams.update(style)
        yield Figure(figsize=(width, height))


def _matplotlib() -> Any:
    """The library, with the settings that it comes with: whatever lies in the current folder under that name may have
    no end, or be no text."""
    if (loaded := sys.modules.get("matplotlib")) is not None:
        return loaded
    found = importlib.util.find_spec("matplotlib")
    assert found and found.origin, "it is a dependency"
    exists, named = os.path.exists, os.environ.get("MATPLOTLIBRC")
    with _lock:
        os.environ["MATPLOTLIBRC"] = str(Path(found.origin).with_name("mpl-data") / _THEIRS)
        os.path.exists = lambda path: path != _THEIRS and exists(path)
        try:
            return importlib.import_module("matplotlib")
        finally:
            os.path.exists = exists
            os.environ.pop("MATPLOTLIBRC") if named is None else os.environ.update(MATPLOTLIBRC=named)


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG without date or program name: equal drawings give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    head, body = buffer.getvalue().decode().split("<defs>", 1)
    return f"{head}<style>{_dark_scheme()}</style>\n <defs>{body}".encode()


def _dark_scheme() -> str:
    rules = (
        f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
        for light, dark in _DARK.items()
        for what in ("fill", "stroke")
    )
    return "@media (prefers-color-scheme: dark){" + "".join(rules) + "}"
