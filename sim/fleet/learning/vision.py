"""The real thing: the fleet's model, a data set's frames under the vehicles' weather, the real trainer."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter

from sim import world
from sim.datasets import Weather, dealt
from sim.fleet.learning import LearningConfig, Score
from vehicle_agent.sensors import AnySensor, Frames, SensorSource

if TYPE_CHECKING:
    from sim.fleet.scenario import Scenario
    from vehicle_agent.trainer import Trainer


class Config(LearningConfig):
    kind: Literal["vision"] = "vision"
    held_out_frames: int = Field(default=300, ge=10)
    """Frames that a version is scored on, the data set's first ones."""

    def build(self, scenario: Scenario, folder: Path, say: Callable[[str], None]) -> Vision:
        return Vision(self, scenario, folder, say)


class Vision:
    """All vehicles train on one model in turn; a vehicle's own are its frames and what its trainer counts."""

    def __init__(
        self, config: Config, scenario: Scenario, folder: Path, say: Callable[[str], None]
    ) -> None:
        self.scenario, sim = scenario, scenario.sim
        self.model = sim.model.build(seed=sim.seed, threads=1)
        self.layout = self.model.layout
        self.num_parameters = sum(p.numel() for p in self.model.parameters())
        trainer = scenario.vehicle.trainer
        self.frames_per_update = trainer.num_examples
        self.images_per_update = trainer.num_examples * trainer.patch_keep_rate
        # The factory, and what the fleet is judged by, are the same for every seed of a comparison.
        self.initial = self._factory(folder, say)
        held_out = sim.dataset.held_out(list(sim.weathers), seed=scenario.initial_seed)
        chosen = slice(0, config.held_out_frames)
        self.held_out = replace(
            held_out,
            images=held_out.images[chosen],
            labels=held_out.labels[chosen],
            conditions=held_out.conditions[chosen],
        )
        clear = [Weather(condition="clear", severity=0.0)] * sim.num_vehicles
        self.tables = dealt(
            sim.dataset, clear, folder / "shards", seed=sim.seed, source=f"fleet {sim.fleet}"
        )

    def learner(self, number: int) -> tuple[SensorSource, Trainer]:
        from vehicle_agent.trainer import Trainer

        sim = self.scenario.sim
        source = TypeAdapter(AnySensor).validate_python(self.tables[number])

        def weather() -> Weather:
            now_s = asyncio.get_running_loop().time()
            return sim.weather.at(sim.weathers, number, sim.num_vehicles, now_s)

        camera = _Outdoors(
            source.build(sim.model.built_task.targets), weather, seed=sim.seed + number
        )
        return camera, Trainer(self.scenario.vehicle.trainer, self.model)

    def class_shares(self, number: int) -> list[float]:
        return list(self.tables[number].get("shares", ()))

    def score(self, vector: np.ndarray) -> Score:
        self.model.load(vector)
        held = self.held_out
        task, predictions = self.model.task, self.model.predictions(held.images)
        accuracy, by_condition = held.accuracy(task, predictions)
        right, groups = task.scores(predictions, held.labels), task.groups(held.labels)
        by_both: dict[str, dict[int, float]] = {}
        for condition in by_condition:
            under = held.conditions == condition
            by_both[condition] = {
                int(group): float(right[under & (groups == group)].mean())
                for group in np.unique(groups[under])
            }
        return Score(accuracy, by_condition, by_both)

    def _factory(self, folder: Path, say: Callable[[str], None]) -> np.ndarray:
        """The factory's vector, made once for this model and data: it takes longer than some runs."""
        from sim.baselines.initial_model import fit_head

        sim, seed = self.scenario.sim, self.scenario.initial_seed
        settings: list[Any] = [seed, sim.model.model_dump(mode="json")]
        settings.append(sim.dataset.model_dump(mode="json"))
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        path = folder / f"factory_{key}.npy"
        if not path.exists():
            images, labels = sim.dataset.initial_frames(seed=seed)
            accuracy = fit_head(self.model, images, labels)
            say(f"factory: {len(images)} clear frames, {accuracy:.1%} right on them")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, self.model.vector())
        return np.load(path)


class _Outdoors:
    """A source of clear frames, under the weather that there is when they are taken."""

    def __init__(self, source: SensorSource, weather: Callable[[], Weather], *, seed: int) -> None:
        self.source, self.weather, self.seed, self.reads = source, weather, seed, 0

    @property
    def num_frames(self) -> int | None:
        return self.source.num_frames

    def read(self, count: int) -> Frames:
        frames, weather = self.source.read(count), self.weather()
        self.reads += 1
        seed = self.seed * 1_000_003 + self.reads
        images = world.under(frames.images, weather.condition, weather.severity, seed=seed)
        return replace(frames, images=images)

    def skip(self, count: int) -> None:
        self.source.skip(count)
