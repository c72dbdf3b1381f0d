"""Scores every release on held-out frames. Skips releases that were overtaken while it was busy."""

import asyncio
import logging
import math

from prometheus_client.metrics_core import Metric

from actors.config import ServerConfig
from actors.gateway import WaitForVersion
from actors.monitoring.metrics import Metrics
from fleetfl.codecs import decoder
from fleetfl.evaluation.held_out import read_held_out
from fleetfl.events.event_log import EventLog
from fleetfl.protocol.messages import Snapshot
from fleetfl.registry.registry import RegistryError, Scores
from fleetfl.releases.generations import BEFORE_ALL, order_of

log = logging.getLogger(__name__)

AGAIN_S = 1.0


class Evaluator:
    """Plain class: `cluster.py` makes it remote. Raises HeldOutError or ModelError when built."""

    def __init__(self, config: ServerConfig, wait_for_version: WaitForVersion) -> None:
        assert config.held_out is not None, "cluster.py makes no evaluator without held-out frames"
        self.model = config.model.build(seed=config.seed, threads=1)
        self.held_out = read_held_out(config.held_out, self.model.task)
        self.wait_for_version, self.registry = wait_for_version, config.releases
        self.metrics = Metrics()
        self.events = EventLog(
            config.state / "events.jsonl", bounds=config.events, watch=self.metrics.heard
        )
        self.version, self.accuracy = -1, math.nan
        self.metrics.gauge(
            "fleetfl_evaluated_version",
            "The last version that was evaluated.",
            lambda: self.version,
        )
        self.metrics.gauge(
            "fleetfl_accuracy_ratio",
            "Accuracy of the last evaluated version on held-out frames, 0 to 1.",
            lambda: self.accuracy,
        )

    async def ping(self) -> None:
        """The actor is up."""

    async def measured(self) -> list[Metric]:
        """The evaluator's metrics at this moment, in Prometheus' types."""
        return self.metrics.collected()

    async def run(self) -> None:
        """Evaluate each newest version until cancelled."""
        order = BEFORE_ALL
        while True:
            try:
                snapshot = await self.wait_for_version(order)
                order = order_of(snapshot)
                await self._evaluate(snapshot)
            except Exception as failed:  # the loop must live: the next version may be a sound one
                log.exception("the version behind %s was not evaluated", order)
                self.events.write("evaluation_failed", version=order[1], detail=str(failed)[:300])
                await asyncio.sleep(AGAIN_S)

    async def _evaluate(self, snapshot: Snapshot) -> None:
        params = decoder(snapshot.codec, self.model.layout).decode(snapshot.body)
        self.model.load(params)
        predictions = await asyncio.to_thread(self.model.predictions, self.held_out.images)
        accuracy, by_condition = self.held_out.accuracy(self.model.task, predictions)
        self.version, self.accuracy = snapshot.version, accuracy
        self.events.write(
            "evaluated", version=snapshot.version, accuracy=accuracy, by_condition=by_condition
        )
        self._keep(snapshot, accuracy, by_condition)

    def _keep(self, snapshot: Snapshot, accuracy: float, by_condition: dict[str, float]) -> None:
        scores = Scores(snapshot.sha256.hex(), accuracy, by_condition)
        try:
            self.registry.score(snapshot.generation, snapshot.version, scores)
        except RegistryError as failed:
            log.error(
                "scores of version %d are only in the log of events: %s", snapshot.version, failed
            )
