"""`fleetfl chaos`: fleets in which everything breaks."""

from typing import Annotated

import typer
from rich.console import Console

from fleetfl.cli.options import AsJson, ConfigFile, Overrides

chaos_app = typer.Typer(help="Fleets in which everything breaks.", no_args_is_help=True)


@chaos_app.command("run")
def chaos_run(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    runs: Annotated[int, typer.Option(min=1, help="Runs, of one seed each.")] = 200,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first run; later runs count up from it.")
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time, a Ray cluster each.")] = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Repeat runs that already have a result.")
    ] = False,
    anew: Annotated[bool, typer.Option("--anew", hidden=True)] = False,
    as_json: AsJson = False,
) -> None:
    """Break a real fleet at random but seeded moments; then say what became of every update.

    RUNS/FLEET has a line for each run (results.jsonl) and all figures (summary.json). Stopped, it goes on
    where it was. Status 1 if a run failed; its folder is kept.
    """
    import json

    from sim.chaos.campaign import Campaign
    from sim.chaos.summary import described, has_failed, headline, summarized, table, told
    from sim.report.progress import Progress

    if anew:
        typer.echo(
            "--anew is called --force now; the old name goes with the next version", err=True
        )
    campaign = Campaign(
        config, overrides or [], runs=runs, seed=seed, workers=workers, force=force or anew
    )
    results = []
    with Progress(Console(stderr=True)) as progress:
        progress.step(f"{runs} runs from seed {seed} on")
        for result in campaign.go():
            results.append(result)
            progress.say(described(result))
            if has_failed(result):
                progress.say(
                    f"again: fleetfl chaos run {config} --runs 1 --seed {result['seed']} --force"
                )
            progress.fleet(len(results) / runs, f"{len(results)} of {runs} runs")
    summary = summarized(results)
    (campaign.folder / "summary.json").write_text(json.dumps(summary, indent=2))
    if as_json:
        typer.echo(json.dumps(told(summary), indent=2))
    else:
        Console().print(table(summary))
        Console().print(headline(summary))
    if summary["failed_seeds"]:
        raise typer.Exit(1)
