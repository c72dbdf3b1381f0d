"""Trainings of virtual vehicles that overlap: put off until the first result is due, then done in one go.

On a clock that jumps, a training is an assignment and a time at which its vehicle has the result. What is
computed when is nobody's business in between.
"""

import asyncio
from collections.abc import Callable, Sequence

from vehicle_agent.trainer import Assignment, LocalTraining

TrainAll = Callable[[Sequence[Assignment]], list[LocalTraining]]
"""`TrainingPool.train`, or `train_together` with its settings and model."""


class Overlap:
    """Shared by the vehicles of one settings and model."""

    def __init__(self, train_all: TrainAll) -> None:
        self.train_all = train_all
        self.put_off: dict[int, Assignment] = {}
        self.done: dict[int, LocalTraining] = {}
        self.number = 0

    async def train(self, assignment: Assignment, *, seconds: float) -> LocalTraining:
        """The result, after so many of the loop's seconds. If cancelled before, it may never be computed."""
        self.number += 1
        number = self.number
        self.put_off[number] = assignment
        try:
            await asyncio.sleep(seconds)
            if number in self.put_off:
                self._catch_up()
            return self.done.pop(number)
        finally:
            self.put_off.pop(number, None)
            self.done.pop(number, None)

    def _catch_up(self) -> None:
        todo, self.put_off = self.put_off, {}
        self.done |= zip(todo, self.train_all(list(todo.values())), strict=True)
