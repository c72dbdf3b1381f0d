"""`fleetfl model`: the releases in a server's state folder, whether it runs or not."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

model_app = typer.Typer(
    help="Releases: where they come from, how they differ, back to an older one.",
    no_args_is_help=True,
)

State = Annotated[
    Path, typer.Option("--state", help="The server's state folder.", metavar="FOLDER")
]
Name = Annotated[
    str, typer.Argument(help="VERSION, GENERATION/VERSION, newest or best.", metavar="VERSION")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HERE = Path("state/server")


@model_app.command("list")
def model_list(state: State = HERE, as_json: AsJson = False) -> None:
    """List the releases, oldest first: where they come from, how they scored, which are damaged."""
    from fleetfl.registry.registry import Registry
    from fleetfl.registry.table import release_table, rows

    listed = rows(Registry.of_server(state).required())
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
    else:
        _wide().print(release_table(listed))


@model_app.command("show")
def model_show(version: Name, state: State = HERE, as_json: AsJson = False) -> None:
    """Say all that is known of a release: updates, settings, scores, code."""
    from fleetfl.registry.registry import Registry, RegistryError
    from fleetfl.registry.release_file import read_record
    from fleetfl.registry.table import about, lines

    registry = Registry.of_server(state)
    entry = registry.find(version)
    try:
        settings = registry.config(read_record(entry.path).config)
    except RegistryError as gone:  # all else can be told
        typer.echo(str(gone), err=True)
        settings = None
    told = about(entry, settings)
    typer.echo(json.dumps(told, indent=2) if as_json else "\n".join(lines(told)))


@model_app.command("diff")
def model_diff(a: Name, b: Name, state: State = HERE, as_json: AsJson = False) -> None:
    """Compare two releases tensor by tensor, and their scores."""
    from fleetfl.registry.diff import changes, require_same
    from fleetfl.registry.registry import Registry
    from fleetfl.registry.release_file import read_release
    from fleetfl.registry.table import change_table, changes_in_json, score_table

    registry = Registry.of_server(state)
    one, other = registry.find(a), registry.find(b)
    _, layout, before = read_release(one.path)
    _, layout_b, after = read_release(other.path)
    require_same(layout, layout_b)
    changed = changes(layout, before, after)
    if as_json:
        typer.echo(json.dumps(changes_in_json(changed, one, other), indent=2))
        return
    _wide().print(change_table(changed))
    _wide().print(score_table(one, other))


@model_app.command("rollback")
def model_rollback(
    version: Name,
    state: State = HERE,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    patience_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for a server to do it.")
    ] = 15.0,
) -> None:
    """Make the next release with the bits of an older one; vehicles and endpoint follow it.

    A server that does not run does it when it is started.
    """
    from fleetfl.registry.rollback import answer, ask

    row = asyncio.run(ask(state, version, reason=reason))
    done = answer(state, row, patience_s=patience_s)
    if done is None:
        typer.echo(
            f"row {row} of the journal asks for it; no server has done it in {patience_s:g} s. "
            "It is done when one is started."
        )
        return
    typer.echo(f"version {done['version']} has the bits of {done['restores']}: {done['sha256']}")


@model_app.command("export")
def model_export(
    version: Name,
    file: Annotated[Path, typer.Argument(help="To write, over an older one.", metavar="FILE")],
    state: State = HERE,
    merged: Annotated[
        bool,
        typer.Option(
            "--merged", help="Backbone and head as one, adapter folded in, as timm has it."
        ),
    ] = False,
) -> None:
    """Write a release as safetensors: adapter and head, or with --merged the whole network."""
    from fleetfl.registry.registry import Registry
    from fleetfl.registry.release_file import read_release, write_release

    registry = Registry.of_server(state)
    record, layout, vector = read_release(registry.find(version).path)
    if merged:
        from fleetfl.registry.merged_export import write_merged

        write_merged(file, record, layout, vector, registry.config(record.config))
    else:
        write_release(file, record, layout, vector)
    typer.echo(f"{file}: {record.name}, SHA-256 of the adapter {record.sha256}")


def _wide() -> Console:
    """Console for wide tables: a pipe or file gets rows of 200 characters."""
    console = Console()
    return console if console.is_terminal else Console(width=200)
