"""`fleetfl server` and `fleetfl status`: aggregation and the endpoint, and how they are."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from actors.errors import NotWellError
from fleetfl.cli.options import CONFIGS, ConfigFile, Overrides, require

if TYPE_CHECKING:
    from fleetfl.storage.backup import Manifest

State = Annotated[
    Path, typer.Option("--state", help="The server's state folder.", metavar="FOLDER")
]
HERE = Path("state/server")

server_app = typer.Typer(help="The server: aggregation and the endpoint.", no_args_is_help=True)


@server_app.command("run")
def server_run(config: ConfigFile, overrides: Overrides = None) -> None:
    """Serve a fleet until SIGTERM or Ctrl-C: gateway, aggregator, evaluator, endpoint."""
    console = Console()

    def tell(step: str) -> None:
        console.print(f"starting: {step}", markup=False, highlight=False, soft_wrap=True)

    tell(f"a server with the settings in {config}")
    require("ray", "fastapi")
    from actors.cluster import run_until_stopped, serving
    from actors.config import ServerConfig
    from fleetfl.config import load
    from fleetfl.storage.state_lock import only_for_owner

    settings = load(config, "server", ServerConfig, overrides or [])
    only_for_owner()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(settings, tell=tell))
        if server.url is not None:
            console.print(f"endpoint at [bold]{server.url}[/] (docs at {server.url}/docs)")
        console.print(f"how it is: [bold]fleetfl status --url {server.config.monitor_url}[/]")
        console.print(f"events in {settings.state / 'events.jsonl'}; Ctrl-C stops the server")
        with contextlib.suppress(KeyboardInterrupt):
            run_until_stopped(server)
        console.print("the server stops")


@server_app.command("backup")
def server_backup(
    into: Annotated[
        Path,
        typer.Argument(
            help="To write: a new folder, or one file if the name ends in .tar, .tar.gz or .tgz.",
            metavar="FOLDER|FILE",
        ),
    ],
    state: State = HERE,
) -> None:
    """Copy a server's state while it runs: model, releases, updates, keys.

    The copy is consistent, and holds every update that had its receipt when this began. It holds the server's
    private key too: keep it where only you can read it. Events are left out.
    """
    from fleetfl.storage.backup import make

    console = Console(stderr=True)
    with console.status("backup") as status:
        made = make(state, into, tell=lambda line: status.update(f"backup: {line}"))
    typer.echo(f"{into}: {_summary(made)}")
    typer.echo(f"to go on from it on any host: fleetfl server restore {into} --state FOLDER")


@server_app.command("restore")
def server_restore(
    backup: Annotated[
        Path, typer.Argument(help="As `server backup` made it.", metavar="FOLDER|FILE")
    ],
    state: State = HERE,
) -> None:
    """Put a backup back as the state folder of a server, which has to be empty or not there.

    Every file is checked against its SHA-256 first. The server that is started there begins a new generation
    of versions, which vehicles follow by themselves. What they learned in updates that it refuses, because
    they were trained from versions that it never made, goes into their next ones.
    """
    from fleetfl.storage.backup import restore

    console = Console(stderr=True)
    with console.status("restore") as status:
        made = restore(backup, state, tell=lambda line: status.update(f"restore: {line}"))
    typer.echo(f"{state}: {_summary(made)}")
    typer.echo(
        "stop the server it came from for good, and start one: fleetfl server run CONFIG.yaml "
        f"--set server.state={state}"
    )


def _summary(made: "Manifest") -> str:
    keys = sum(name.startswith("keys/") for name in made.files)
    releases = sum(name.endswith(".safetensors") for name in made.files)
    where = f"version {made.version} of {made.generation} at row {made.counted_row} of {made.newest_row}"
    return (
        f"{len(made.files)} files, {made.num_bytes / 1e6:.1f} MB; {where} in the journal, "
        f"{releases} releases, {keys} vehicles' keys"
    )


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
            raise NotWellError("; ".join(wrong))
        return
    with Live(rendered(summary(now, before)), console=console, screen=console.is_terminal) as live:
        while True:
            time.sleep(2.0)
            before, now = now, look(url)
            live.update(rendered(summary(now, before)), refresh=True)
