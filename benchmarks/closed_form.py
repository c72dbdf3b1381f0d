"""Updates saved by a head in closed form: the same fleet, with and without it, until a target accuracy.

Claim: the fleet reaches its target with at most half of the updates.

Run: python benchmarks/closed_form.py configs/quickstart.yaml [--set KEY=VALUE ...] [--json FILE]

Each seed deals the data, draws the vehicles' speeds (log-normal, sigma 0.5) and their batches anew. Both runs
of a seed start from the same factory model and see the same arrivals; one of them has first the head that
fleetfl/closed_form.py solves from one message a vehicle, made of 320 frames. These messages count as
updates. The target is 95 % of the way from the factory model's accuracy to the best that the run without
sums reaches, on a moving mean of three measurements.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from actors.config import ServerConfig
from fleetfl.closed_form import ClosedFormHead, Config, SufficientStatistics
from fleetfl.config import read_with, validate
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.protocol.signing import Signer
from sim.baselines.initial_model import fit_head
from sim.bench.lockstep import LockstepFleet
from sim.live.config import SimConfig
from vehicle_agent.config import VehicleConfig
from vehicle_agent.sensors import AnySensor
from vehicle_agent.trainer import Trainer


def features(model: Any, images: np.ndarray) -> np.ndarray:
    """float32 [N, D]."""
    with torch.no_grad():
        parts = [torch.from_numpy(images[i : i + 128]) for i in range(0, len(images), 128)]
        return torch.cat([model.features(part) for part in parts]).numpy()


class Bench:
    def __init__(self, path: Path, overrides: list[str], *, images: int) -> None:
        self.path = path
        self.tree = read_with(path, overrides)
        self.tree.setdefault("transport", {"kind": "mqtt"})
        self.sim = validate(self.tree, "sim", SimConfig, str(path))
        self.model = self.sim.model.build(seed=self.sim.seed)
        fit_head(self.model, *self.sim.dataset.initial_frames(seed=self.sim.seed))
        self.factory = self.model.vector()
        held_out = self.sim.dataset.held_out(self.sim.weather_of_each(), seed=self.sim.seed)
        chosen = np.random.default_rng(0).permutation(len(held_out.labels))[:images]
        self.images, self.labels = held_out.images[chosen], held_out.labels[chosen]

    def accuracy(self, vector: np.ndarray) -> float:
        self.model.load(vector)
        return float((self.model.predictions(self.images).argmax(1) == self.labels).mean())

    def run(
        self, seed: int, updates: int, every: int, frames: int, head: Config | None
    ) -> list[tuple[int, float]]:
        """(updates, accuracy) from the start on."""
        with tempfile.TemporaryDirectory(prefix="fleetfl-") as scratch:
            weathers = self.sim.weather_of_each()
            tables = self.sim.dataset.sensors(weathers, Path(scratch) / "shards", seed=seed)
            kind = TypeAdapter(AnySensor)
            sensors = [kind.validate_python(t).build(self.sim.model.classes) for t in tables]
            mine = {"name": "v00", "state": scratch, "sensor": tables[0]}
            vehicle = self._part("vehicle", VehicleConfig, mine)
            server = self._part("server", ServerConfig, {"state": scratch})
            signer = Signer.from_file(self.sim.fleet, Path(scratch) / "key.pem")
        layout, start, spent = self.model.layout, self.factory, 0
        curve = [(0, self.accuracy(start))]
        if head is not None:
            owner = ClosedFormHead(head, layout, start)
            self.model.load(start)
            for number, sensor in enumerate(sensors):
                seen = sensor.read(frames)
                sums = SufficientStatistics.of(
                    features(self.model, seen.images), seen.labels, len(self.sim.model.classes)
                )
                body = sums.packed(owner.features)
                owner.put(f"v{number}", body, sums.num_examples)
            start, spent = owner.solved(start), len(sensors)
            curve.append((spent, self.accuracy(start)))
            print(f"  sums: {len(body):,} bytes a vehicle", flush=True)
        coordinator = Coordinator.from_settings(server, start, layout)
        fleet = LockstepFleet(
            self.sim.fleet,
            coordinator,
            sensors,
            [Trainer(vehicle.trainer, self.model) for _ in sensors],
            codec=vehicle.codec,
            error_feedback=vehicle.error_feedback,
            signer=signer,
            seed=seed,
        )

        def measure(done: int) -> None:
            if done % every == 0:
                curve.append((spent + done, self.accuracy(coordinator.published.vector)))
                print(f"  {curve[-1][0]} updates: {curve[-1][1]:.3f}", file=sys.stderr, flush=True)

        fleet.run(updates, sigma=0.5, each=measure)
        return curve

    def _part(self, name: str, kind: Any, mine: dict[str, Any]) -> Any:
        part = {**self.tree.get(name, {}), **mine}
        return validate({**self.tree, name: part}, name, kind, str(self.path))


def smooth(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Mean of each measurement and up to two before it; the start stays."""
    values = [value for _, value in curve]
    means = [
        float(np.mean(values[max(1, i - 2) : i + 1])) if i else values[0]
        for i in range(len(values))
    ]
    return [(at, mean) for (at, _), mean in zip(curve, means, strict=True)]


def updates_to(curve: list[tuple[int, float]], target: float) -> int | None:
    return next((at for at, value in smooth(curve) if value >= target), None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--updates", type=int, default=160)
    parser.add_argument("--every", type=int, default=8, help="updates between two measurements")
    parser.add_argument("--images", type=int, default=600, help="held-out images to measure on")
    parser.add_argument("--frames", type=int, default=320, help="whose sums a vehicle sends")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--scale", type=float, default=Config().scale)
    parser.add_argument("--json", type=Path, help="also write the curves there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(options.config, options.set, images=options.images)
    rows = []
    for seed in map(int, options.seeds.split(",")):
        curves = {
            name: bench.run(seed, options.updates, options.every, options.frames, head)
            for name, head in (
                ("without", None),
                ("with", Config(vehicles=1, scale=options.scale)),
            )
        }
        best = max(value for _, value in smooth(curves["without"]))
        target = curves["without"][0][1] + 0.95 * (best - curves["without"][0][1])
        needed = {name: updates_to(curve, target) for name, curve in curves.items()}
        finals = {name: smooth(curve)[-1][1] for name, curve in curves.items()}
        rows.append({"seed": seed, "target": target, "updates": needed, "curves": curves})
        print(
            f"seed {seed}: target {target:.3f}; updates {needed}; at the end {finals}", flush=True
        )
        for name, curve in curves.items():
            print(f"  {name:8}" + " ".join(f"{at}:{100 * value:.1f}" for at, value in curve))
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
