"""The command line: `fleetfl --help`. Commands live beside what they run, and are found as entry points."""

import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

import fleetfl
from fleetfl import FleetflError
from fleetfl.cli.entry_points import add_commands
from fleetfl.cli.options import Overrides

PACKAGES = ("fleetfl", "actors", "vehicle_agent", "sim")

app = typer.Typer(
    help="Fleets that improve one vision foundation model together.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
add_commands(app)


@app.command()
def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(help="Also try this file's broker and ports.", metavar="CONFIG"),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Check the installation: what is there, what is missing, and how to repair it."""
    from fleetfl.cli.doctor import examine

    if not examine(Console(), config, overrides or []):
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """Print the version."""
    Console().print(fleetfl.__version__, highlight=False)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. An error that a person can repair ends in one line and status 1, not in a traceback."""
    # A plain `kill` ends what we started in order, and that is no failure.
    signal.signal(signal.SIGTERM, _end_in_order)
    try:
        app(arguments)
    except FleetflError as error:
        _fail(str(error))
    except OSError as unusable:  # a file, folder or port that a person named
        _fail(" ".join(str(unusable).split()))
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.split(".")[0] in PACKAGES:
            raise
        _fail(f'this command needs {missing.name}, which is not here: pip install "fleetfl[all]"')


def _end_in_order(_number: int, _frame: object) -> NoReturn:
    sys.exit(0)


def _fail(why: str) -> NoReturn:
    # soft_wrap: a path or a value is not broken over two lines.
    console = Console(stderr=True)
    console.print(f"error: {why}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)
