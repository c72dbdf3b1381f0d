"""The real thing: the fleet's model, a data set's frames under the vehicles' weather, the real trainer."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter

from fleetfl.evaluation.held_out import HeldOut, read_held_out
from sim import world
from sim.datasets import Weather, dealt
from sim.fleet.learning import Learner, LearningConfig, LearningContext, Score, given_initial
from vehicle_agent.sensors import AnySensor, Frames, SensorSource


class Config(LearningConfig):
    kind: Literal["vision"] = "vision"
    held_out_frames: int = Field(default=300, ge=10)
    """Frames that a version is scored on, the data set's first ones."""

    def build(self, context: LearningContext) -> Vision:
        return Vision(self, context)


class Vision:
    """All vehicles train on one model in turn; each has its own frames and class counts."""

    def __init__(self, config: Config, context: LearningContext) -> None:
        self.context, trainer = context, context.trainer
        self.model = context.model.build(seed=context.seed, threads=1)
        self.layout = self.model.layout
        self.num_parameters = sum(p.numel() for p in self.model.parameters())
        self.frames_per_update = trainer.num_examples
        self.images_per_update = trainer.num_examples * trainer.patch_keep_rate
        self.initial = self._initial()
        self.held_out = self._held_out(config)
        clear = [Weather(condition="clear", severity=0.0)] * context.num_vehicles
        self.tables = dealt(
            context.dataset,
            clear,
            context.folder / "shards",
            seed=context.seed,
            source=f"fleet {context.fleet}",
        )

    def learner(self, number: int) -> Learner:
        from vehicle_agent.trainer import Trainer

        context = self.context
        source = TypeAdapter(AnySensor).validate_python(self.tables[number])

        def weather() -> Weather:
            now_s = asyncio.get_running_loop().time()
            return context.weather.at(context.weathers, number, context.num_vehicles, now_s)

        camera = _Outdoors(
            source.build(context.model.built_task.targets), weather, seed=context.seed + number
        )
        trainer = Trainer(context.trainer, self.model)
        return Learner(camera, trainer, trainer.sums)

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

    # Version 0, and the frames that a fleet is judged by, are the same for every seed of a comparison.

    def _held_out(self, config: Config) -> HeldOut:
        context = self.context
        if context.held_out is not None:
            return read_held_out(context.held_out, context.model.built_task)
        weathers = list(context.weathers)
        found = context.dataset.held_out(weathers, seed=context.initial_seed)
        chosen = slice(0, config.held_out_frames)
        return HeldOut(found.images[chosen], found.labels[chosen], found.conditions[chosen])

    def _initial(self) -> np.ndarray:
        """Version 0, made once for this model and data: it takes longer than some runs."""
        from sim.baselines.initial_model import fit_head

        context, seed = self.context, self.context.initial_seed
        if context.initial is not None:
            return given_initial(context.initial, self.layout)
        settings: list[Any] = [seed, context.model.model_dump(mode="json")]
        settings.append(context.dataset.model_dump(mode="json"))
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        path = context.folder / f"factory_{key}.npy"
        if not path.exists():
            images, labels = context.dataset.initial_frames(seed=seed)
            accuracy = fit_head(self.model, images, labels)
            context.say(f"factory: {len(images)} clear frames, {accuracy:.1%} right on them")
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
