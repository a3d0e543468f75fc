"""`codetune preflight`: the first stage alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

from flows.commands.options import Budget, Changes, Recipe, StorePath, configure, say_what_is_looked_at


def preflight(recipe: Recipe, *, changes: Changes = None, budget: Budget = None, store: StorePath = None) -> int:
    """Say whether this machine can run a recipe, and at what cost.

    The plan, the time and the memory that are expected, what is too little. It runs no stage.
    """
    config = configure(recipe, changes, store, budget)
    from rich.markdown import Markdown

    from artifacts.presentation import to_markdown
    from artifacts.progress import SILENT
    from flows.output import Console
    from tasks.models.base_model import locate
    from tasks.preflight import STAGE
    from tasks.prompts import check_context

    config.training.check()
    config.exporting.check(config.generation.forms)
    config.workers.check()
    say_what_is_looked_at(config)
    with tempfile.TemporaryDirectory() as folder:
        model = locate(config.model)
        report = STAGE.run(config.preflight, model=model, job=config.job(), workdir=Path(folder), progress=SILENT)
        check_context(config.prompts, model)
        console = Console(highlight=False)
        for section in STAGE.show(report):
            console.print(Markdown(f"## {section.title}"))
            for block in section.blocks:
                console.print(Markdown(to_markdown(block), hyperlinks=False))
    return 0
