"""Scores every release on held-out frames. Skips releases that were overtaken while it was busy."""

import asyncio

import torch

from actors.config import ServerConfig
from actors.gateway import Newer
from fleetfl.codecs import decoder
from fleetfl.held_out import read_held_out
from fleetfl.telemetry import EventLog


class Evaluator:
    """Plain class: `cluster.py` makes it remote. Raises HeldOutError or ModelError when built."""

    def __init__(self, config: ServerConfig, newer: Newer) -> None:
        assert config.held_out is not None, "cluster.py makes no evaluator without held-out frames"
        torch.set_num_threads(1)
        self.model = config.model.build(seed=config.seed)
        self.held_out = read_held_out(config.held_out, len(config.model.classes))
        self.newer = newer
        self.events = EventLog(config.state / "events.jsonl")

    async def ping(self) -> None:
        """The actor is up."""

    async def run(self) -> None:
        version = -1
        while True:
            snapshot = await self.newer(version)
            version = snapshot.version
            params = decoder(snapshot.codec, self.model.layout).decode(snapshot.body)
            self.model.load(params)
            scores = await asyncio.to_thread(self.model.probabilities, self.held_out.images)
            accuracy, by_condition = self.held_out.accuracy(scores.argmax(axis=1))
            self.events.write(
                "evaluated", version=version, accuracy=accuracy, by_condition=by_condition
            )
