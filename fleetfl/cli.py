"""The command line: `fleetfl --help`. Each command imports what it needs when it is called."""

import asyncio
import contextlib
import importlib.util
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

import fleetfl
from fleetfl import FleetflError
from fleetfl.imports import uncollected
from fleetfl.model_commands import model_app

CONFIGS = Path(__file__).parents[1] / "configs"
PACKAGES = ("fleetfl", "actors", "vehicle_agent", "sim")

app = typer.Typer(
    help="Fleets that improve one vision foundation model together.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
sim_app = typer.Typer(help="Fleets on this machine.", no_args_is_help=True)
server_app = typer.Typer(help="The server: aggregation and the endpoint.", no_args_is_help=True)
vehicle_app = typer.Typer(help="The agent on a vehicle.", no_args_is_help=True)
codec_app = typer.Typer(help="What goes over the air.", no_args_is_help=True)
bench_app = typer.Typer(help="Measurements on this machine.", no_args_is_help=True)
chaos_app = typer.Typer(help="Fleets in which everything breaks.", no_args_is_help=True)
app.add_typer(sim_app, name="sim")
app.add_typer(server_app, name="server")
app.add_typer(vehicle_app, name="vehicle")
app.add_typer(codec_app, name="codec")
app.add_typer(model_app, name="model")
app.add_typer(bench_app, name="bench")
app.add_typer(chaos_app, name="chaos")

ConfigFile = Annotated[Path, typer.Argument(help="YAML file of settings.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME.NAME=VALUE",
        help="Lay one setting over the file's, such as server.aggregator.goal=4. May be repeated.",
    ),
]


@app.command()
def demo(overrides: Overrides = None) -> None:
    """Run the quickstart fleet: 8 vehicles under weather, a broker, a server, an endpoint."""
    _run_fleet(CONFIGS / "quickstart.yaml", overrides or [])


@sim_app.command("run")
def sim_run(config: ConfigFile, overrides: Overrides = None) -> None:
    """Run a whole fleet on this machine and report on it: RUNS/FLEET/report.html.

    With `sim.clock: virtual`, as in configs/virtual-fleet.yaml, a day of many vehicles takes minutes.
    """
    _run_fleet(config, overrides or [])


@sim_app.command("compare")
def sim_compare(
    config: ConfigFile,
    overrides: Overrides = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; one a processor by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run algorithms against each other on the same fleets and seeds, each tuned on the same budget.

    Writes RUNS/FLEET/compare.html. Stopped, it goes on where it was.
    """
    import json
    import time

    from sim import instructions

    instructions.agree()
    from sim.compare.report import written
    from sim.compare.results import tables
    from sim.compare.run import run
    from sim.progress import Progress
    from sim.report.figures import duration

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


@server_app.command("run")
def server_run(config: ConfigFile, overrides: Overrides = None) -> None:
    """Serve a fleet until Ctrl-C: gateway, aggregator, evaluator, endpoint."""
    _require("ray", "fastapi")
    from actors.cluster import run_until_stopped, serving
    from actors.config import ServerConfig
    from fleetfl.config import load

    console = Console()
    settings = load(config, "server", ServerConfig, overrides or [])
    with contextlib.ExitStack() as stack:
        with console.status("server starts"):
            server = stack.enter_context(serving(settings))
        if server.url is not None:
            console.print(f"endpoint at [bold]{server.url}[/] (docs at {server.url}/docs)")
        console.print(f"how it is: [bold]fleetfl status --url {server.config.monitor_url}[/]")
        console.print(f"events in {settings.state / 'events.jsonl'}; Ctrl-C stops the server")
        run_until_stopped(server)


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

    from fleetfl.adapter_file import read_adapter
    from fleetfl.identity import Keyring
    from fleetfl.inspection import described, lines

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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train vehicles for a few updates and say what each codec makes of them: bytes and speed."""
    import json

    from sim.codec_bench import configs_of, measure, record, table
    from sim.progress import Progress

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
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; one a processor by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run the same fleet, arrivals and seeds with one codec after the other: bytes and accuracy.

    Runs for an hour or more; stopped, it goes on where it was.
    """
    import json

    from sim.progress import Progress
    from sim.rate_accuracy import run, table
    from sim.report.rate_curve import rate_curve

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


@chaos_app.command("run")
def chaos_run(
    config: ConfigFile,
    overrides: Overrides = None,
    *,
    runs: Annotated[int, typer.Option(min=1, help="Runs, of one seed each.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the first run; the next has the next.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time, a Ray cluster each.")] = 1,
    anew: Annotated[
        bool, typer.Option("--anew", help="Make again also what was made before.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Break a real fleet at random but seeded moments; then say what became of every update.

    RUNS/FLEET has a line for each run (results.jsonl) and all figures (summary.json). Stopped, it goes on
    where it was. Status 1 if a run failed; its folder is kept.
    """
    import json

    from sim.chaos.campaign import Campaign
    from sim.chaos.summary import described, has_failed, headline, summarized, table, told
    from sim.progress import Progress

    campaign = Campaign(config, overrides or [], runs=runs, seed=seed, workers=workers, anew=anew)
    results = []
    with Progress(Console(stderr=True)) as progress:
        progress.step(f"{runs} runs from seed {seed} on")
        for result in campaign.go():
            results.append(result)
            progress.say(described(result))
            if has_failed(result):
                progress.say(
                    f"again: fleetfl chaos run {config} --runs 1 --seed {result['seed']} --anew"
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


@app.command()
def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(help="Also try this file's broker and ports.", metavar="CONFIG"),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Say what is installed, what is missing, and how to mend it."""
    from fleetfl.doctor import examine

    if not examine(Console(), config, overrides or []):
        raise typer.Exit(1)


@app.command()
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
    """Say how a running server and its vehicles are."""
    import time

    import msgspec
    from rich.live import Live

    from actors.status import look, summary
    from actors.status_table import rendered
    from fleetfl.config import load

    if url is None:
        from actors.config import ServerConfig

        url = load(config, "server", ServerConfig, overrides or []).monitor_url
    before = look(url)
    time.sleep(1.0)
    now = look(url)
    if as_json:
        typer.echo(msgspec.json.encode(summary(now, before)).decode())  # NaN is null there
        return
    console = Console()
    if not watch:
        console.print(rendered(summary(now, before)))
        return
    with Live(rendered(summary(now, before)), console=console, screen=console.is_terminal) as live:
        while True:
            time.sleep(2.0)
            before, now = now, look(url)
            live.update(rendered(summary(now, before)), refresh=True)


@app.command()
def version() -> None:
    """Print the version."""
    Console().print(fleetfl.__version__, highlight=False)


def _run_fleet(config: Path, overrides: list[str]) -> None:
    from fleetfl.config import read_with
    from sim.progress import Progress
    from sim.table import result_table

    if read_with(config, overrides).get("sim", {}).get("clock") == "virtual":
        from sim import instructions

        instructions.agree()
        from sim.fleet.command import run
    else:
        _require("ray", "fastapi")
        from sim.run import run
    console = Console()
    with Progress(console) as progress:
        summary = run(config, overrides, progress=progress)
    console.print(result_table(summary))
    console.print(f"report: {summary['folder']}/report.html", highlight=False, soft_wrap=True)


def _require(*modules: str) -> None:
    """Raises ModuleNotFoundError now, not minutes later when a part of the server is built."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(name=name)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. What a person can mend ends in one line and status 1, not in a traceback."""
    # A plain `kill` ends what we started just as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(arguments)
    except FleetflError as error:
        _fail(str(error))
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.split(".")[0] in PACKAGES:
            raise
        _fail(f'this command needs {missing.name}, which is not here: pip install "fleetfl[all]"')


def _fail(why: str) -> NoReturn:
    # soft_wrap: a path or a value is not broken over two lines.
    console = Console(stderr=True)
    console.print(f"error: {why}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)
