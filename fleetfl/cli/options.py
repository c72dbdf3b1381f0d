"""Options and checks that several commands share."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

CONFIGS = Path(__file__).parents[2] / "configs"

ConfigFile = Annotated[Path, typer.Argument(help="YAML file of settings.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME.NAME=VALUE",
        help="Lay one setting over the file's, such as server.aggregator.goal=4. May be repeated.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Runs at a time; one a processor by default.")
]


def require(*modules: str) -> None:
    """Raises ModuleNotFoundError now, not minutes later when a part of the server is built."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(name=name)
