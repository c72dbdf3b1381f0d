"""`fleetfl codec`: inspect frames as they go over the air."""

from pathlib import Path
from typing import Annotated

import typer

from fleetfl import FleetflError

codec_app = typer.Typer(help="Inspect frames as they go over the air.", no_args_is_help=True)


@codec_app.command("inspect")
def codec_inspect(
    frame: Annotated[Path, typer.Argument(help="File with one frame.", metavar="FRAME")],
    keys: Annotated[
        Path | None, typer.Option(help="Folder of NAME.pub: check the signature. Needs --fleet.")
    ] = None,
    fleet: Annotated[str | None, typer.Option(help="The fleet that it was signed for.")] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Any adapter.safetensors of the model: decode the body.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a frame holds: type, fields, signature, codec, and the values of its body."""
    import json

    from fleetfl.cli.inspection import described, lines
    from fleetfl.protocol.signing import Keyring
    from fleetfl.registry.adapter_file import read_adapter

    if (keys is None) != (fleet is None):
        raise typer.BadParameter("--keys and --fleet go together: a signature is for one fleet")
    try:
        content = frame.read_bytes()
    except OSError as missing:
        raise FleetflError(f"{frame}: cannot be read: {missing.strerror}") from missing
    about = described(
        content,
        keys=None if keys is None or fleet is None else Keyring(fleet, keys),
        layout=None if adapter is None else read_adapter(adapter)[0],
    )
    typer.echo(json.dumps(about) if as_json else "\n".join(lines(about)))
