"""One hostile vehicle among the quickstart's eight: what its updates cost, and what the bounds cost.

Claim: whatever of six kinds of updates it sends, accuracy ends at most 3 points below that of eight honest
vehicles; and the fold keeps at least 80 % of its updates/s.

Run: python benchmarks/hostile.py configs/quickstart.yaml [--kinds A,B] [--updates N] [--set KEY=VALUE ...]

All runs see the same frames and arrivals. First each vehicle sends statistics of 320 frames for the head in
closed form (the hostile one forged ones in the last kind), then updates, one after the other. Accuracy is on
held-out frames, the mean of three measurements at the end. A run takes one to two minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from pydantic import TypeAdapter

from actors.config import ServerConfig
from fleetfl.aggregators.fedbuff import Config as FedBuff
from fleetfl.closed_form import KIND, SufficientStatistics, features_of
from fleetfl.codecs import decoder
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.config import read_with, validate
from fleetfl.coordination.coordinator import DEFAULT_CLIP, Coordinator
from fleetfl.coordination.settings import CoordinatorSettings
from fleetfl.protocol.messages import Update
from fleetfl.protocol.signing import Signer
from fleetfl.vectors import Layout
from sim.attacks.vehicle import KINDS, HostileFleet, forged_statistics, weighty
from sim.baselines.initial_model import fit_head
from sim.live.config import SimConfig
from vehicle_agent.config import VehicleConfig
from vehicle_agent.sensors import AnySensor
from vehicle_agent.trainer import Trainer

FRAMES = 320
"""Whose statistics a vehicle sends."""


class Bench:
    def __init__(self, path: Path, overrides: list[str], *, images: int) -> None:
        self.path, self.tree = path, read_with(path, overrides)
        self.tree.setdefault("transport", {"kind": "mqtt"})
        self.sim = validate(self.tree, "sim", SimConfig, str(path))
        self.model = self.sim.model.build(seed=self.sim.seed)
        fit_head(self.model, *self.sim.dataset.initial_frames(seed=self.sim.seed))
        self.factory = self.model.vector()
        held_out = self.sim.dataset.held_out(self.sim.weather_of_each(), seed=self.sim.seed)
        chosen = np.random.default_rng(0).permutation(len(held_out.labels))[:images]
        self.images, self.labels = held_out.images[chosen], held_out.labels[chosen]
        self.sums: list[SufficientStatistics] = []

    def accuracy(self, vector: np.ndarray) -> float:
        self.model.load(vector)
        return float((self.model.predictions(self.images).argmax(1) == self.labels).mean())

    def run(self, kind: str | None, updates: int, seed: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="fleetfl-") as scratch:
            weathers = self.sim.weather_of_each()
            tables = self.sim.dataset.sensors(weathers, Path(scratch) / "shards", seed=seed)
            sensor = TypeAdapter(AnySensor)
            sensors = [sensor.validate_python(t).build(self.sim.model.classes) for t in tables]
            mine = {"name": "v00", "state": scratch, "sensor": tables[0]}
            vehicle = self._part("vehicle", VehicleConfig, mine)
            server = self._part("server", ServerConfig, {"state": scratch})
            signer = Signer.from_file(self.sim.fleet, Path(scratch) / "key.pem")
        layout = self.model.layout
        coordinator = Coordinator.from_settings(server, self.factory, layout)
        self._send_sums(coordinator, sensors, kind)
        begun = self.accuracy(coordinator.published.vector)
        fleet = HostileFleet(
            self.sim.fleet,
            coordinator,
            sensors,
            [Trainer(vehicle.trainer, self.model) for _ in sensors],
            kind=kind,
            codec=vehicle.codec,
            error_feedback=vehicle.error_feedback,
            signer=signer,
            seed=seed,
        )
        last: list[float] = []

        def measure(done: int) -> None:
            if done in (updates, updates - 4, updates - 8):
                last.append(self.accuracy(coordinator.published.vector))

        fleet.run(updates, sigma=0.5, each=measure)
        known = coordinator.bounds.newest.values()
        return {
            "kind": kind or "honest",
            "after_statistics": begun,
            "at_the_end": statistics.fmean(last),
            "refused": fleet.refused,
            "honest_clipped": fleet.clipped,
            "versions": coordinator.version,
            "norms": sorted(round(each.norm, 3) for each in known),
        }

    def _send_sums(self, coordinator: Coordinator, sensors: list[Any], kind: str | None) -> None:
        self.model.load(self.factory)
        for number, sensor in enumerate(sensors):
            seen = sensor.read(FRAMES)
            if len(self.sums) <= number:  # the same frames in every run
                with torch.no_grad():
                    parts = torch.from_numpy(seen.images).split(128)
                    features = torch.cat([self.model.features(part) for part in parts]).numpy()
                classes = len(self.sim.model.classes)
                self.sums.append(SufficientStatistics.of(features, seen.labels, classes))
            sums = self.sums[number]
            if kind and KINDS[kind] is weighty and number == len(sensors) - 1:
                sums = forged_statistics(sums)
            update = plain(coordinator.layout, f"v{number:02d}", 0)
            body = sums.packed(features_of(self.factory, coordinator.layout))
            coordinator.submit(
                replace(update, boot="sums", codec=KIND, body=body, num_examples=sums.num_examples)
            )

    def _part(self, name: str, kind: Any, mine: dict[str, Any]) -> Any:
        part = {**self.tree.get(name, {}), **mine}
        return validate({**self.tree, name: part}, name, kind, str(self.path))


def plain(layout: Layout, vehicle: str, sequence: int, body: bytes = b"") -> Update:
    """As vehicles send it; of no frames that anybody has seen."""
    about = (vehicle, "bench", sequence, 0, layout.fingerprint, 320, 10, 0, 0, 0.5)
    return Update(*about, "float32", body)


def folds_per_s(clip: Any, size: int, rounds: int) -> float:
    """Updates that a coordinator judges and folds in a second: eight vehicles, the last one hostile."""
    layout, dice = Layout.flat(size), np.random.default_rng(0)
    deltas = [1e-3 * dice.normal(size=size) for _ in range(7)] + [np.ones(size)]
    codec = decoder("float32", layout)
    bodies = [codec.encode(delta.astype(np.float32)) for delta in deltas]
    coordinator = Coordinator.from_settings(
        CoordinatorSettings(
            aggregator=FedBuff(goal=4), release=Int8(), max_staleness=10**9, clip=clip
        ),
        0.05 * dice.normal(size=size).astype(np.float32),
        layout,
    )
    seconds = []
    for turn in range(rounds):
        batch = [plain(layout, f"v{n}", turn, body) for n, body in enumerate(bodies)]
        began = time.process_time()  # others may use the machine too
        for update in batch:
            coordinator.submit(update)
        seconds.append((time.process_time() - began) / len(batch))
    return 1 / statistics.median(seconds)


def kept(size: int, rounds: int) -> tuple[float, float]:
    """Updates/s without and with the bounds, in turn, so that both meet the same machine."""
    turns: dict[str, Callable[[], float]] = {
        "off": lambda: folds_per_s(None, size, rounds),
        "on": lambda: folds_per_s(DEFAULT_CLIP, size, rounds),
    }
    found = {name: [turns[name]() for _ in range(1)] for name in turns}
    for _ in range(4):
        for name, measure in turns.items():
            found[name].append(measure())
    return statistics.median(found["off"]), statistics.median(found["on"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--updates", type=int, default=48)
    parser.add_argument("--without-fold", action="store_true", help="measures accuracy alone")
    parser.add_argument("--images", type=int, default=1000, help="held-out images to measure on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for size, rounds in () if options.without_fold else ((38_794, 40), (294_912, 8)):
        off, on = kept(size, rounds)
        print(
            f"fold of {size:,} values: {off:,.0f}/s without bounds, {on:,.0f}/s with: {on / off:.0%}"
        )
    sys.stdout.flush()
    bench, rows, honest = Bench(options.config, options.set, images=options.images), [], 0.0
    print(
        f"{'':26}{'statistics':>11}{'at the end':>11}{'lost':>7}{'refused':>9}{'honest clipped':>16}"
    )
    for kind in [None, *filter(None, options.kinds.split(","))]:
        row = bench.run(kind, options.updates, options.seed)
        honest = row["at_the_end"] if kind is None else honest
        row["lost"] = honest - row["at_the_end"]
        shares = [f"{100 * row[name]:.1f}" for name in ("after_statistics", "at_the_end", "lost")]
        print(
            f"{row['kind']:26}{shares[0]:>11}{shares[1]:>11}{shares[2]:>7}"
            f"{row['refused']:>9}{row['honest_clipped']:>16}",
            flush=True,
        )
        rows.append(row)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
