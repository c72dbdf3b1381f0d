"""The command line: `fleetfl --help`. Groups of commands are in fleetfl/commands/."""

import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

import fleetfl
from actors.cli import server_app
from fleetfl import FleetflError
from fleetfl.cli.codec import codec_app
from fleetfl.cli.model import model_app
from fleetfl.cli.options import CONFIGS, Overrides
from sim.cli.bench import bench_app
from sim.cli.chaos import chaos_app
from sim.cli.sim import run_fleet, sim_app
from vehicle_agent.cli import vehicle_app

PACKAGES = ("fleetfl", "actors", "vehicle_agent", "sim")

app = typer.Typer(
    help="Fleets that improve one vision foundation model together.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(sim_app, name="sim")
app.add_typer(server_app, name="server")
app.add_typer(vehicle_app, name="vehicle")
app.add_typer(codec_app, name="codec")
app.add_typer(model_app, name="model")
app.add_typer(bench_app, name="bench")
app.add_typer(chaos_app, name="chaos")


@app.command()
def demo(overrides: Overrides = None) -> None:
    """Run the quickstart fleet: 8 vehicles under weather, a broker, a server, an endpoint."""
    run_fleet(CONFIGS / "quickstart.yaml", overrides or [])


@app.command()
def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(help="Also try this file's broker and ports.", metavar="CONFIG"),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Say what is installed, what is missing, and how to mend it."""
    from fleetfl.cli.doctor import examine

    if not examine(Console(), config, overrides or []):
        raise typer.Exit(1)


@app.command()
def status(
    config: Annotated[
        Path, typer.Argument(help="The server's settings: where its monitor is.", metavar="CONFIG")
    ] = CONFIGS / "server.yaml",
    overrides: Overrides = None,
    url: Annotated[
        str | None, typer.Option(help="The monitor's address, as the server prints it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
) -> None:
    """Say how a running server and its vehicles are. Status 1 if something keeps it from its work."""
    import time

    import msgspec
    from rich.live import Live

    from actors.monitoring.status import look, summary, troubles
    from actors.monitoring.status_table import rendered
    from fleetfl.config import load

    if url is None:
        from actors.config import ServerConfig

        url = load(config, "server", ServerConfig, overrides or []).monitor_url
    before = look(url)
    time.sleep(1.0)
    now = look(url)
    about = summary(now, before)
    console = Console()
    if as_json:
        typer.echo(msgspec.json.encode(about).decode())  # NaN is null there
    elif not watch:
        console.print(rendered(about))
    if as_json or not watch:
        if wrong := troubles(about):
            _fail("; ".join(wrong))
        return
    with Live(rendered(summary(now, before)), console=console, screen=console.is_terminal) as live:
        while True:
            time.sleep(2.0)
            before, now = now, look(url)
            live.update(rendered(summary(now, before)), refresh=True)


@app.command()
def version() -> None:
    """Print the version."""
    Console().print(fleetfl.__version__, highlight=False)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. What a person can mend ends in one line and status 1, not in a traceback."""
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
