"""`fleetfl sim`: run and compare fleets on this machine."""

from pathlib import Path

import typer
from rich.console import Console

from fleetfl.cli.options import CONFIGS, AsJson, ConfigFile, Overrides, Workers, require

sim_app = typer.Typer(help="Fleets on this machine.", no_args_is_help=True)


@sim_app.command("run")
def sim_run(config: ConfigFile, overrides: Overrides = None) -> None:
    """Run a whole fleet on this machine and report on it: RUNS/FLEET/report.html.

    With `sim.clock: virtual`, as in configs/virtual-fleet.yaml, a day of many vehicles takes minutes.
    """
    run_fleet(config, overrides or [])


@sim_app.command("compare")
def sim_compare(
    config: ConfigFile,
    overrides: Overrides = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Run algorithms against each other on the same fleets and seeds, each tuned on the same budget.

    Writes RUNS/FLEET/compare.html. A stopped comparison resumes where it was.
    """
    import json
    import time

    from sim.fleet import instructions

    instructions.agree()
    from sim.compare.report import written
    from sim.compare.results import tables
    from sim.compare.run import run
    from sim.report.figures import duration
    from sim.report.progress import Progress

    standing, stage, began, before = None, "", 0.0, 0
    with Progress(Console(stderr=True)) as progress:
        for standing in run(config, overrides or [], workers=workers):
            if standing.stage != stage:
                stage, began, before = standing.stage, time.monotonic(), standing.done
                progress.step(stage)
            left = standing.in_all - standing.done
            note = f"{standing.done} of {standing.in_all} runs"
            if left and standing.done > before:
                each_s = (time.monotonic() - began) / (standing.done - before)
                note += f", {duration(each_s * left)} left"
            progress.fleet(standing.done / max(1, standing.in_all), note)
    assert standing is not None
    page = written(standing)
    if as_json:
        typer.echo(json.dumps([result.to_json() for result in standing.results], indent=2))
    else:
        console = Console()
        for table in tables(standing.results):
            console.print(table)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)


def run_fleet(config: Path, overrides: list[str]) -> None:
    """Run the fleet in real or virtual time, as `sim.clock` says; shows progress and a table of results."""
    from fleetfl.config import read_with, table
    from sim.report.progress import Progress
    from sim.report.table import result_table

    if table(read_with(config, overrides), "sim", str(config)).get("clock") == "virtual":
        from sim.fleet import instructions

        instructions.agree()
        from sim.fleet.command import run
    else:
        require("ray", "fastapi")
        from sim.live.run import run
    console = Console()
    with Progress(console) as progress:
        summary = run(config, overrides, progress=progress)
    console.print(result_table(summary))
    console.print(f"report: {summary['folder']}/report.html", highlight=False, soft_wrap=True)


def demo(overrides: Overrides = None) -> None:
    """Run the quickstart fleet: 8 vehicles under weather, a broker, a server, an endpoint."""
    run_fleet(CONFIGS / "quickstart.yaml", overrides or [])
