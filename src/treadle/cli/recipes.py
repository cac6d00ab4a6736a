"""`treadle recipes`: what can be trained, with a line each."""

from __future__ import annotations

from treadle.cli.common import Parser, show
from treadle.recipes.registry import list_recipes

EXAMPLES = """  treadle recipes
  treadle train image --help     every setting of one of them"""


def run(arguments: list[str]) -> int:
    """List the recipes; returns 1 where one of them cannot be used."""
    Parser(
        "recipes", "What can be trained: Treadle's own recipes, and those of installed packages.", EXAMPLES
    ).parse_args(arguments)
    rows = list_recipes()
    show(
        ["recipe", "what it does", "from"],
        [(row.name, row.problem or row.description, row.origin) for row in rows],
    )
    print("train one: treadle train RECIPE    its settings: treadle train RECIPE --help")
    return 1 if any(row.problem for row in rows) else 0
