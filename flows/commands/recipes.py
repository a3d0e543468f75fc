"""`codetune recipes`: what there is to run, and what can be set."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter


def list_recipes(
    *,
    settings: Annotated[bool, Parameter(help="Describe every setting instead, as JSON schema.", negative="")] = False,
) -> int:
    """List the recipes that come with codetune, or every setting."""
    if settings:
        from flows.config import PipelineConfig

        print(json.dumps(PipelineConfig.model_json_schema(), indent=1))
        return 0
    from rich.table import Table

    from flows import recipes
    from flows.output import Console

    table = Table(box=None, pad_edge=False)
    table.add_column("recipe", style="bold", no_wrap=True)
    table.add_column("what it does")
    for name in recipes.names():
        table.add_row(name, recipes.describe(name))
    Console(highlight=False).print(table)
    return 0
