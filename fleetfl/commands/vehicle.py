"""`fleetfl vehicle`: the agent on a vehicle."""

import asyncio
import logging

import typer

from fleetfl.commands.options import ConfigFile, Overrides
from fleetfl.imports import uncollected

vehicle_app = typer.Typer(help="The agent on a vehicle.", no_args_is_help=True)


@vehicle_app.command("run")
def vehicle_run(config: ConfigFile, overrides: Overrides = None) -> None:
    """Run this vehicle's agent until SIGTERM or Ctrl-C."""
    from fleetfl.config import load
    from vehicle_agent.config import VehicleConfig

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    settings = load(config, "vehicle", VehicleConfig, overrides or [])
    with uncollected():
        from vehicle_agent.run import run  # torch: not before the settings are sound

    asyncio.run(run(settings))


@vehicle_app.command("key")
def vehicle_key(config: ConfigFile, overrides: Overrides = None) -> None:
    """Print this vehicle's public key, as a server's folder of keys has it in NAME.pub."""
    from fleetfl.config import load
    from fleetfl.identity import Signer
    from vehicle_agent.config import VehicleConfig

    settings = load(config, "vehicle", VehicleConfig, overrides or [])
    signer = Signer.from_file(settings.fleet, settings.key_file)
    typer.echo(signer.public_line(settings.name))
