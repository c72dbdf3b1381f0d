"""Many in one call and on all cores, ahead of need: each is worked out from when its stack is full.

A stack has the trainings that were begun one after the other in virtual time, as many as the model gains by
(`sim/fleet/workers/stacked_model.py`), or fewer if the first result is needed before it is full. So what lies
in it follows from virtual time alone, and the same seed gives the same bits however many cores there are.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np
from pydantic import Field

from fleetfl.config import ConfigError
from sim.fleet.executors import ExecutorConfig, Result, TrainingContext
from sim.fleet.workers.process_pool import TrainingProcesses
from sim.fleet.workers.ray_pool import TrainingPool
from vehicle_agent.sensors import Frames
from vehicle_agent.training import Assignment, LocalTraining, Training
from vehicle_agent.training import Config as TrainerConfig

if TYPE_CHECKING:
    from fleetfl.models.adapted import AdaptedModel
    from vehicle_agent.trainer import Trainer

Results = Callable[[], list[LocalTraining]]
"""Of one stack: waits until they are there."""


class Config(ExecutorConfig):
    kind: Literal["stacked"] = "stacked"
    workers: int | None = Field(default=None, ge=0)
    """Processes that train, one a core if not given; 0 trains in the simulation's own."""
    ray: str | None = None
    """Train on the actors of this Ray cluster (`auto` or an address) instead."""

    @contextmanager
    def running(self, context: TrainingContext) -> Iterator[Stacked]:
        if context.learning != "vision":
            raise ConfigError(
                f"sim.executor: `stacked` trains a model, and sim.learning is {context.learning!r}; "
                "expected `serial`"
            )
        trainer = context.trainer
        if self.workers == 0:
            yield Stacked(
                _Here(trainer, context.model.build(seed=context.seed)), trainer.batch_size
            )
            return
        with self._pool(context) as pool:
            yield Stacked(pool, trainer.batch_size)

    def _pool(self, context: TrainingContext) -> TrainingPool | TrainingProcesses:
        given = (context.trainer, context.model)
        if self.ray is not None:
            return TrainingPool(*given, seed=context.seed, workers=self.workers, address=self.ray)
        workers = self.workers or os.cpu_count() or 1
        return TrainingProcesses(*given, seed=context.seed, workers=workers)


class Trainers(Protocol):
    @property
    def rows_at_once(self) -> int:
        """Images that a step had best look at."""
        ...

    def submit(self, todo: Sequence[Assignment]) -> Results:
        """Start a stack of them."""
        ...


class _Here:
    def __init__(self, config: TrainerConfig, model: AdaptedModel) -> None:
        from sim.fleet.workers.stacked_model import rows_for

        self.config, self.model, self.rows_at_once = config, model, rows_for(model)

    def submit(self, todo: Sequence[Assignment]) -> Results:
        from sim.fleet.workers.stacked_model import train_together

        return lambda: train_together(self.config, self.model, todo, rows=self.rows_at_once)


class Stacked:
    def __init__(self, trainers: Trainers, batch_size: int) -> None:
        """Trainings of `batch_size` images a step."""
        self.trainers, self.batch_size = trainers, batch_size
        self.stack = _Stack()

    @functools.cached_property
    def size(self) -> int:
        """Trainings in a stack. Asked for with the first one: the trainers may take a while to begin."""
        return max(1, self.trainers.rows_at_once // self.batch_size)

    def begin(self, trainer: Training, start: np.ndarray, frames: Frames, *, seed: int) -> Result:
        trainer = cast("Trainer", trainer)  # there is nothing else where a model is trained
        # A training that nobody asks for has not taken place: its frames must not count for the next.
        before = trainer.counts.copy()
        assignment = trainer.assignment(start, frames, seed=seed)
        counted, trainer.counts = trainer.counts, before
        stack, place = self.stack, len(self.stack.todo)
        stack.todo.append(assignment)
        if len(stack.todo) >= self.size:
            self._start(stack)
        return functools.partial(self._result, trainer, counted, stack, place)

    def _start(self, stack: _Stack) -> None:
        stack.results, self.stack = functools.cache(self.trainers.submit(stack.todo)), _Stack()

    def _result(
        self, trainer: Trainer, counted: np.ndarray, stack: _Stack, place: int
    ) -> LocalTraining:
        if stack.results is None:
            self._start(stack)
        assert stack.results is not None
        trained = stack.results()[place]
        trainer.counts = counted
        return replace(trained, class_counts=counted.tolist())


class _Stack:
    def __init__(self) -> None:
        self.todo: list[Assignment] = []
        self.results: Results | None = None
        """None until it has been started."""
