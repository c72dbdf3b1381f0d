"""`fleetfl vehicle`: the agent on a vehicle."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from fleetfl.cli.options import ConfigFile, Overrides
from fleetfl.models.loading import uncollected

vehicle_app = typer.Typer(
    help="The agent on a vehicle; and, for the server, which vehicles are banned.",
    no_args_is_help=True,
)

State = Annotated[
    Path, typer.Option("--state", help="The server's state folder.", metavar="FOLDER")
]
Vehicle = Annotated[str, typer.Argument(help="The vehicle's name.", metavar="NAME")]
Reason = Annotated[str, typer.Option(help="Why: for the record, and for the vehicle.")]
Wait = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds to wait for a server to do it.")
]
HERE = Path("state/server")


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
    from fleetfl.protocol.signing import Signer
    from vehicle_agent.config import VehicleConfig

    settings = load(config, "vehicle", VehicleConfig, overrides or [])
    signer = Signer.from_file(settings.fleet, settings.key_file)
    typer.echo(signer.public_line(settings.name))


@vehicle_app.command("ban")
def vehicle_ban(
    name: Vehicle, state: State = HERE, reason: Reason = "", patience_s: Wait = 15.0
) -> None:
    """Take nothing more of a vehicle, whatever key it comes with, and take its sums and caches out.

    A server that does not run does it when it is started.
    """
    _ask(name, state, reason, patience_s, is_banned=True)


@vehicle_app.command("unban")
def vehicle_unban(
    name: Vehicle, state: State = HERE, reason: Reason = "", patience_s: Wait = 15.0
) -> None:
    """Take updates of a banned vehicle again."""
    _ask(name, state, reason, patience_s, is_banned=False)


@vehicle_app.command("bans")
def vehicle_bans(
    state: State = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the vehicles that are banned, and why."""
    from fleetfl.registry.ban import in_force
    from fleetfl.registry.registry import Registry

    Registry.of_server(state).required()  # else a misspelt folder would say that nobody is
    banned = in_force(state)
    if as_json:
        typer.echo(json.dumps(banned, indent=2))
    for name, reason in {} if as_json else banned.items():
        typer.echo(f"{name}: {reason or 'no reason was given'}")
    if not banned and not as_json:
        typer.echo("no vehicle is banned")


def _ask(name: str, state: Path, reason: str, patience_s: float, *, is_banned: bool) -> None:
    from fleetfl.registry import ban, requests

    was_banned = name in ban.in_force(state)
    row = asyncio.run(ban.ask(state, name, reason=reason, is_banned=is_banned))
    keys = state / "keys"
    if is_banned and keys.is_dir() and not (keys / f"{name}.pub").exists():
        typer.echo(f"note: {keys} has no key of {name}; is the name right?", err=True)
    done = ban.DONE if is_banned else ban.LIFTED
    if requests.answer(state, row, done=done, refused=ban.REFUSED, patience_s=patience_s) is None:
        typer.echo(
            f"row {row} of the journal asks for it; no server has done it in {patience_s:g} s. "
            "It is done when one is started."
        )
        return
    if is_banned or was_banned:
        now = "banned" if is_banned else "no longer banned"
        typer.echo(f"{name} is {now} from row {row} on")
    else:
        typer.echo(f"{name} was not banned, and is not from row {row} on")
