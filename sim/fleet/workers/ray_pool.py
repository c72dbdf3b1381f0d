"""Trainings spread over Ray actors, one a core: on this machine, or on all of a cluster."""

import itertools
import logging
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from fleetfl.models import ModelConfig
from vehicle_agent.training import Assignment, Config, LocalTraining

log = logging.getLogger(__name__)

KEEP_MEMORY = {
    "OMP_NUM_THREADS": "1",
    # glibc gives large blocks back to the kernel and gets them again, as zeroed pages, at each step.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""Environment of the actors."""


class Worker:
    """Owns a model; `TrainingPool` makes it remote."""

    def __init__(self, config: Config, model: ModelConfig, *, seed: int) -> None:
        self.config, self.model = config, model.build(seed=seed, threads=1)
        # In the actor, after its environment is set; whoever only asks for trainings needs no torch.
        from sim.fleet.workers import stacked_model

        self.stacked_model = stacked_model

    def train(self, todo: Sequence[Assignment], rows: int) -> list[LocalTraining]:
        return self.stacked_model.train_together(self.config, self.model, todo, rows=rows)

    def rows_for(self) -> int:
        """How many images are best looked at at once: see sim/fleet/workers/stacked_model.py."""
        return self.stacked_model.rows_for(self.model)


class TrainingPool:
    """Trains any number of assignments; a context, inside of which the actors live.

    `address` None starts a Ray of our own on this machine, with so many cores; `auto` or an address
    joins a cluster. `rows` images are looked at at once; 1 trains one by one, None is what suits the
    model. Each actor has its share.
    """

    def __init__(
        self,
        config: Config,
        model: ModelConfig,
        *,
        seed: int = 0,
        workers: int | None = None,
        rows: int | None = None,
        address: str | None = None,
    ) -> None:
        self.config, self.model, self.seed, self.rows = config, model, seed, rows
        self.workers, self.address = workers, address

    def __enter__(self) -> "TrainingPool":
        """Raises what building the model raises."""
        import ray
        from ray.util.actor_pool import ActorPool

        if not ray.is_initialized():
            self._start_ray()
        count = self.workers or math.floor(ray.cluster_resources()["CPU"])
        remote: Any = ray.remote(Worker).options(num_cpus=1, runtime_env={"env_vars": KEEP_MEMORY})
        self.actors = [remote.remote(self.config, self.model, seed=self.seed) for _ in range(count)]
        rows = ray.get([actor.rows_for.remote() for actor in self.actors])
        self.rows = self.rows or rows[0]
        self.pool, self.turns = ActorPool(self.actors), itertools.cycle(self.actors)
        return self

    def _start_ray(self) -> None:
        """Raises what Ray raises, of a cluster of our own at the third try."""
        import ray

        own = self.address is None
        for is_last in (not own, not own, True):
            try:
                ray.init(
                    self.address or "local",  # without one Ray joins whatever runs on this machine
                    num_cpus=(self.workers or os.cpu_count()) if own else None,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
                return
            except Exception as failed:  # on a busy machine: "the current node timed out"
                ray.shutdown()
                if is_last:
                    raise
                log.warning("Ray did not start and is tried again: %s", failed)

    @property
    def rows_at_once(self) -> int:
        """Images that a step looks at; known inside of the context."""
        assert self.rows is not None, "used outside of its context"
        return self.rows

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()

    def train(self, todo: Sequence[Assignment]) -> list[LocalTraining]:
        """What `vehicle_agent.trainer.train` gives for each, in their order."""
        from sim.fleet.workers.stacked_model import stacks

        # No stack so large that an actor has nothing to do.
        share = -(-len(todo) // len(self.actors)) * self.config.batch_size
        parts = list(stacks(self.config, todo, rows=min(self.rows_at_once, max(1, share))))
        done: dict[int, LocalTraining] = {}
        work = [[todo[number] for number in part] for part in parts]
        trained = self.pool.map(lambda actor, part: actor.train.remote(part, self.rows), work)
        for part, results in zip(parts, trained, strict=True):
            done |= zip(part, results, strict=True)
        return [done[number] for number in range(len(todo))]

    def submit(self, todo: Sequence[Assignment]) -> Callable[[], list[LocalTraining]]:
        """Start them on one actor, each in its turn; what is given back waits for the results."""
        import ray

        trained = next(self.turns).train.remote(todo, self.rows_at_once)
        return lambda: ray.get(trained)
