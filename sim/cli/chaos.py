"""`fleetfl chaos`: fault injection into real fleets on this machine."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fleetfl.cli.options import AsJson, ConfigFile, Overrides

if TYPE_CHECKING:
    from sim.chaos.campaign import Campaign

chaos_app = typer.Typer(help="Inject faults into real fleets.", no_args_is_help=True)


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
    """Inject seeded crashes, cuts, latency and duplicates into a real fleet; then account for every update.

    RUNS/FLEET has a line for each run (results.jsonl) and all figures (summary.json). A stopped campaign
    resumes where it was. Status 1 if a run failed; its folder is kept.
    """
    import json

    from sim.chaos.campaign import Campaign
    from sim.chaos.summary import headline, summarized, table, told

    if anew:
        typer.echo(
            "--anew is called --force now; the old name goes with the next version", err=True
        )
    campaign = Campaign(
        config, overrides or [], runs=runs, seed=seed, workers=workers, force=force or anew
    )
    summary = summarized(_shown(campaign))
    (campaign.folder / "summary.json").write_text(json.dumps(summary, indent=2))
    if as_json:
        typer.echo(json.dumps(told(summary), indent=2))
    else:
        Console().print(table(summary))
        Console().print(headline(summary))
    if summary["failed_seeds"]:
        raise typer.Exit(1)


def _shown(campaign: "Campaign") -> "list[dict[str, Any]]":
    """Run the campaign with progress and a line for each run; gives the results."""
    from sim.chaos.summary import described, has_failed
    from sim.report.progress import Progress

    results, runs = [], len(campaign.seeds)
    with Progress(Console(stderr=True)) as progress:
        progress.step(f"{runs} runs from seed {campaign.seeds.start} on")
        for result in campaign.go():
            results.append(result)
            progress.say(described(result))
            if has_failed(result):
                progress.say(
                    f"to repeat it: fleetfl chaos run {campaign.path} --runs 1 "
                    f"--seed {result['seed']} --force"
                )
            progress.fleet(len(results) / runs, f"{len(results)} of {runs} runs")
    return results
