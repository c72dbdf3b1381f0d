"""100 local trainings of a small ViT on two cores: a bare loop, our processes, Flower's simulation engine.

Claims, at batches of one image: one by one in at most 1.1 times the time of the bare loop; batched, in at
most half of it; at least 4 times as many client updates a second as Flower's simulation engine. Larger
batches leave less between the operations to save: docs/results/many-vehicles.md has them.

Run: python benchmarks/vs_flower.py [--json FILE] [--batch-sizes 1,2,4,8]

All train the same: LoRA and head (8,842 values) in a ViT of 208,000 values with random weights, each
client on 32 images of its own in batches of the size given, by `vehicle_agent.trainer`, one thread a process.

- ideal: two processes with 50 trainings each and nothing to coordinate; the slower one counts.
- by one: the two processes that a virtual fleet trains in (`process_pool`), one training at a time.
- batched: the same, as they are in use: stacked adapters.
- on ray: as batched, on two Ray actors (sim.fleet.workers.ray_pool), which a cluster has more of.
- flower: one round of FedAvg is 100 clients, `fraction_evaluate` 0, one CPU a client; the model is built once
  in each of its processes. Its own strategy, server and Ray.

Each contender is a process of its own, does the trainings three times, and its fastest time counts; "whole"
is the first time with the start of Ray and of the models: what a run of one round takes. Flower
gets an environment of its own (PyPI, about 600 MB, installed once), which borrows our torch and fleetfl.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import site
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from small_vit import assignment, model, model_config, trainer_config

FLOWER_REQUIREMENT = "flwr[simulation]==1.41.0"
REPEATS, CORES = 3, 2


def train_part(work: tuple[range, int]) -> float:
    """Seconds for these clients, one after the other."""
    from vehicle_agent.trainer import train

    clients, batch_size = work
    config, start = trainer_config(batch_size), model().vector()
    todo = [assignment(client, start, batch_size) for client in clients]
    train(config, model(), todo[0])
    began = time.perf_counter()
    for each in todo:
        train(config, model(), each)
    return time.perf_counter() - began


def ideal(batch_size: int, clients: int) -> list[float]:
    parts = [range(core, clients, CORES) for core in range(CORES)]
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        return [
            max(pool.map(train_part, [(part, batch_size) for part in parts], chunksize=1))
            for _ in range(REPEATS)
        ]


def processes(batch_size: int, clients: int, *, stacked: bool) -> list[float]:
    from sim.fleet.workers.process_pool import TrainingProcesses

    seconds = []
    with TrainingProcesses(
        trainer_config(batch_size), model_config(), seed=0, workers=CORES
    ) as trainers:
        start = model().vector()
        size = max(1, trainers.rows_at_once // batch_size) if stacked else 1
        # As many for the one as for the other.
        parts = -(-clients // size)
        parts += -parts % CORES
        for _ in range(REPEATS):
            began = time.perf_counter()
            todo = [assignment(client, start, batch_size) for client in range(clients)]
            asked = [trainers.submit(todo[part::parts]) for part in range(parts)]
            trained = sum(len(results()) for results in asked)
            seconds.append(time.perf_counter() - began)
            if trained != clients:
                raise RuntimeError(f"{trained} of {clients} clients were trained")
    return seconds


def one_by_one(batch_size: int, clients: int) -> list[float]:
    return processes(batch_size, clients, stacked=False)


def batched(batch_size: int, clients: int) -> list[float]:
    return processes(batch_size, clients, stacked=True)


def on_ray(batch_size: int, clients: int) -> list[float]:
    from sim.fleet.workers.ray_pool import TrainingPool

    seconds = []
    with TrainingPool(trainer_config(batch_size), model_config(), workers=CORES) as trainers:
        start = model().vector()
        for _ in range(REPEATS):
            began = time.perf_counter()
            todo = [assignment(client, start, batch_size) for client in range(clients)]
            trainers.train(todo)
            seconds.append(time.perf_counter() - began)
    return seconds


def flower(batch_size: int, clients: int) -> list[float]:
    from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    marks: list[float] = []

    class Timed(FedAvg):
        def configure_train(self, *args: Any, **kwargs: Any) -> Iterable[Message]:
            marks.append(time.perf_counter())
            return super().configure_train(*args, **kwargs)

        def aggregate_train(self, *args: Any, **kwargs: Any) -> Any:
            aggregated = super().aggregate_train(*args, **kwargs)
            marks.append(time.perf_counter())
            return aggregated

    server, client = ServerApp(), ClientApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = Timed(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=clients)
        start = ArrayRecord({"vector": Array(model().vector())})
        strategy.start(grid=grid, initial_arrays=start, num_rounds=REPEATS)

    @client.train()
    def fit(message: Message, context: Context) -> Message:
        # By name, from the module: what it caches does not travel to Flower's processes.
        from small_vit import assignment, model, trainer_config

        from vehicle_agent.trainer import train

        start = message.content["arrays"]["vector"].numpy()
        number = int(context.node_config["partition-id"])
        trained = train(trainer_config(batch_size), model(), assignment(number, start, batch_size))
        content = {
            "arrays": ArrayRecord({"vector": Array(start + trained.delta)}),
            "metrics": MetricRecord({"num-examples": trained.num_examples}),
        }
        return Message(content=RecordDict(content), reply_to=message)

    run_simulation(
        server,
        client,
        num_supernodes=clients,
        backend_config={
            "init_args": {"num_cpus": CORES},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    if len(marks) != 2 * REPEATS:
        raise RuntimeError(f"Flower finished {len(marks) // 2} of {REPEATS} rounds")
    return [end - begin for begin, end in zip(marks[::2], marks[1::2], strict=True)]


CONTENDERS: dict[str, Callable[[int, int], list[float]]] = {
    "ideal": ideal,
    "by one": one_by_one,
    "batched": batched,
    "on ray": on_ray,
    "flower": flower,
}


def measure(name: str, batch_size: int, clients: int) -> None:
    """Print as JSON: seconds of each repeat, and of the whole process's work."""
    began = time.perf_counter()
    seconds = CONTENDERS[name](batch_size, clients)
    whole = time.perf_counter() - began - sum(seconds[1:])
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "whole_s": whole, "child_mb": memory}))


def flower_python(folder: Path) -> Path:
    """The interpreter of Flower's environment in `folder`, made if it is not there."""
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    installed = [python, "-m", "pip", "install", "--quiet", FLOWER_REQUIREMENT]
    subprocess.run(installed, check=True)
    asked = [python, "-c", "import site; print(site.getsitepackages()[0])"]
    theirs = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    # After its own packages: it keeps its own ray and numpy.
    here = Path(__file__).parent
    ours = [*site.getsitepackages(), str(here.parent), str(here)]
    (theirs / "borrowed.pth").write_text("\n".join(ours) + "\n")
    return python


def measured(python: Path, name: str, batch_size: int, clients: int) -> dict[str, Any]:
    command = [python, __file__, "--measure", name, str(batch_size), str(clients)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("--batch-sizes", default="1,2,4,8")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="of processes; the median counts")
    parser.add_argument("--without-flower", action="store_true", help="installs nothing")
    parser.add_argument(
        "--flower-env", type=Path, default=Path.home() / ".cache" / "fleetfl" / "flower-simulation"
    )
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], *map(int, options.measure[1:]))
        return
    pythons = {name: Path(sys.executable) for name in CONTENDERS}
    if options.without_flower:
        del pythons["flower"]
    else:
        pythons["flower"] = flower_python(options.flower_env)
    rows = []
    print(f"{'batch':>5} {'':8}{'seconds':>9}{'updates/s':>11}{'of ideal':>10}{'whole, s':>10}")
    for batch_size in map(int, options.batch_sizes.split(",")):
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
        for _ in range(options.rounds):
            for name, python in pythons.items():
                runs[name].append(measured(python, name, batch_size, options.clients))
        fastest = {
            name: statistics.median(min(run["seconds"]) for run in mine)
            for name, mine in runs.items()
        }
        for name, mine in runs.items():
            whole = statistics.median(run["whole_s"] for run in mine)
            row = {
                "name": name,
                "batch_size": batch_size,
                "seconds": round(fastest[name], 3),
                "updates_per_s": round(options.clients / fastest[name], 2),
                "of_ideal": round(fastest[name] / fastest["ideal"], 3),
                "whole_s": round(whole, 2),
            }
            rows.append(row)
            print(
                f"{batch_size:5} {name:8}{row['seconds']:9.2f}{row['updates_per_s']:11.1f}"
                f"{row['of_ideal']:10.2f}{row['whole_s']:10.1f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
