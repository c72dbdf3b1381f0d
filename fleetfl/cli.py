"""The command line: `fleetfl --help`. Each command imports what it needs when it is called."""

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

import fleetfl
from fleetfl import FleetflError

CONFIGS = Path(__file__).parents[1] / "configs"
PACKAGES = ("fleetfl", "actors", "vehicle_agent", "sim")

app = typer.Typer(
    help="Fleets that improve one vision foundation model together.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
sim_app = typer.Typer(help="Fleets on this machine.", no_args_is_help=True)
server_app = typer.Typer(help="The server: aggregation and the endpoint.", no_args_is_help=True)
vehicle_app = typer.Typer(help="The agent on a vehicle.", no_args_is_help=True)
app.add_typer(sim_app, name="sim")
app.add_typer(server_app, name="server")
app.add_typer(vehicle_app, name="vehicle")

ConfigFile = Annotated[Path, typer.Argument(help="YAML file of settings.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME.NAME=VALUE",
        help="Lay one setting over the file's, such as server.aggregator.goal=4. May be repeated.",
    ),
]


@app.command()
def demo(overrides: Overrides = None) -> None:
    """Run the quickstart fleet: 8 vehicles under weather, a broker, a server, an endpoint."""
    _run_fleet(CONFIGS / "quickstart.yaml", overrides or [])


@sim_app.command("run")
def sim_run(config: ConfigFile, overrides: Overrides = None) -> None:
    """Run a whole fleet on this machine and report on it: RUNS/FLEET/report.html."""
    _run_fleet(config, overrides or [])


@server_app.command("run")
def server_run(config: ConfigFile, overrides: Overrides = None) -> None:
    """Serve a fleet until Ctrl-C: gateway, aggregator, evaluator, endpoint."""
    from actors.cluster import run_until_stopped, serving
    from actors.config import ServerConfig
    from fleetfl.config import load

    console = Console()
    settings = load(config, "server", ServerConfig, overrides or [])
    with contextlib.ExitStack() as stack:
        with console.status("server starts"):
            server = stack.enter_context(serving(settings))
        console.print(f"endpoint at [bold]{server.url}[/] (docs at {server.url}/docs)")
        console.print(f"events in {settings.state / 'events.jsonl'}; Ctrl-C stops the server")
        run_until_stopped(server)


@vehicle_app.command("run")
def vehicle_run(config: ConfigFile, overrides: Overrides = None) -> None:
    """Run this vehicle's agent until SIGTERM or Ctrl-C."""
    from fleetfl.config import load
    from vehicle_agent.config import VehicleConfig
    from vehicle_agent.run import run

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(run(load(config, "vehicle", VehicleConfig, overrides or [])))


@app.command()
def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(help="Also try this file's broker and ports.", metavar="CONFIG"),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Say what is installed, what is missing, and how to mend it."""
    from fleetfl.doctor import examine

    if not examine(Console(), config, overrides or []):
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """Print the version."""
    Console().print(fleetfl.__version__, highlight=False)


def _run_fleet(config: Path, overrides: list[str]) -> None:
    from sim.progress import Progress
    from sim.run import run
    from sim.table import result_table

    console = Console()
    with Progress(console) as progress:
        summary = run(config, overrides, progress=progress)
    console.print(result_table(summary))
    console.print(f"report: {summary['folder']}/report.html", highlight=False, soft_wrap=True)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. What a person can mend ends in one line and status 1, not in a traceback."""
    # A plain `kill` ends what we started just as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(arguments)
    except FleetflError as error:
        _fail(str(error))
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.split(".")[0] in PACKAGES:
            raise
        _fail(f'this command needs {missing.name}, which is not here: pip install "fleetfl[all]"')


def _fail(why: str) -> NoReturn:
    # soft_wrap: a path or a value is not broken over two lines.
    console = Console(stderr=True)
    console.print(f"error: {why}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)
