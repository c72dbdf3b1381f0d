"""`fleetfl server`: aggregation and the endpoint."""

import contextlib

import typer
from rich.console import Console

from fleetfl.commands.options import ConfigFile, Overrides, require

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

    settings = load(config, "server", ServerConfig, overrides or [])
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(settings, tell=tell))
        if server.url is not None:
            console.print(f"endpoint at [bold]{server.url}[/] (docs at {server.url}/docs)")
        console.print(f"how it is: [bold]fleetfl status --url {server.config.monitor_url}[/]")
        console.print(f"events in {settings.state / 'events.jsonl'}; Ctrl-C stops the server")
        with contextlib.suppress(KeyboardInterrupt):
            run_until_stopped(server)
        console.print("the server stops")
