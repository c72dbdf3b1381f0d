"""`fleetfl trace`: the life of one update, from the state folders of a server, a vehicle, or both."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fleetfl.cli.options import AsJson

HERE = Path("state/server")


def trace(
    vehicle: Annotated[str, typer.Argument(help="Name of the vehicle.", metavar="VEHICLE")],
    update: Annotated[
        str | None,
        typer.Argument(
            help="One update; without it, the newest are listed.", metavar="BOOT/SEQUENCE"
        ),
    ] = None,
    state: Annotated[
        list[Path] | None,
        typer.Option(
            "--state",
            help="State folder of a server or a vehicle, state/server by default. May be repeated.",
            metavar="FOLDER",
        ),
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="Updates that are listed.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Tell what became of a vehicle's updates: outbox, journal, judgement, release.

    Only reads, and locks nothing: server and vehicle may run meanwhile.
    """
    from fleetfl.trace import TraceError, notes_of, side_of
    from fleetfl.trace.life import lives, row, told
    from fleetfl.trace.names import parsed, unknown_update
    from fleetfl.trace.tables import lines

    wanted = None if update is None else parsed(update)
    found = lives(notes_of([side_of(folder) for folder in state or [HERE]], vehicle))
    if wanted is None:
        _print_rows([row(life) for life in found[-last:]], as_json=as_json)
        return
    one = next((life for life in found if life.name == wanted), None)
    if one is None:
        raise TraceError(unknown_update(wanted, vehicle, [life.name for life in found]))
    about = told(one, vehicle)
    typer.echo(json.dumps(about, indent=2) if as_json else "\n".join(lines(about)))


def _print_rows(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    from fleetfl.trace.tables import update_table

    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(update_table(rows))
