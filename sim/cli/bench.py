"""`fleetfl bench`: measurements on this machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fleetfl import FleetflError
from fleetfl.cli.options import CONFIGS, AsJson, ConfigFile, Overrides, Workers

bench_app = typer.Typer(help="Measurements on this machine.", no_args_is_help=True)


@bench_app.command("codec")
def bench_codec(
    config: Annotated[
        Path, typer.Argument(help="A fleet's settings: its model and data.", metavar="CONFIG")
    ] = CONFIGS / "quickstart.yaml",
    overrides: Overrides = None,
    codecs: Annotated[
        list[str] | None,
        typer.Option(
            "--codec", help="One codec as YAML, such as '{kind: eden, bits: 2}'. May be repeated."
        ),
    ] = None,
    updates: Annotated[int, typer.Option(min=1, help="Updates to record.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Train vehicles for a few updates and measure each codec on them: bytes and speed."""
    import json

    from sim.bench.codec import configs_of, measure, record, table
    from sim.report.progress import Progress

    chosen = configs_of(codecs or [])
    with Progress(Console(stderr=True)) as progress:
        made = record(config, overrides or [], updates=updates, progress=progress)
        progress.step(f"{len(chosen)} codecs on {made.layout.size:,} values")
        rows = measure(made.vectors, made.layout, chosen, topic=made.topic)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        Console().print(table(rows))


@bench_app.command("rate-accuracy")
def bench_rate_accuracy(
    config: ConfigFile,
    overrides: Overrides = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the curve into this file.", metavar="FILE.svg")
    ] = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Run the same fleet, arrivals and seeds with one codec after the other: bytes and accuracy.

    Takes an hour or more; a stopped benchmark resumes where it was.
    """
    import json

    from sim.bench.rate_accuracy import run, table
    from sim.report.progress import Progress
    from sim.report.rate_curve import rate_curve

    if picture is not None and not picture.absolute().parent.is_dir():
        raise FleetflError(f"--picture {picture}: there is no such folder")  # now, not in an hour
    rows = []
    with Progress(Console(stderr=True)) as progress:
        progress.step("the same arrivals with one codec after the other")
        for done, in_all, so_far in run(config, overrides or [], workers=workers):
            rows = so_far
            progress.fleet(done / in_all, f"{done} of {in_all} runs")
    if picture is not None:
        seeds = max(row["seeds"] for row in rows) if rows else 0
        about = f"{config.name}, up to {seeds} seeds, mean and 95 % interval of the difference"
        picture.write_text(rate_curve(rows, about=about))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        Console().print(table(rows))
