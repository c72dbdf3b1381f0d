"""A fleet in one process and without a clock: the seed decides who is done when, whatever a codec does.

The vehicle's trainer, codec and error feedback, the wire format and the server's Coordinator are the
real ones; links never fail and nothing waits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fleetfl.codecs import CodecConfig
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.coordination.outcome import Outcome
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Update
from fleetfl.protocol.signing import Signer
from fleetfl.transport import mqtt_publish_bytes
from sim.bench.arrivals import arrivals
from vehicle_agent.error_feedback import ErrorFeedback
from vehicle_agent.sensors import SensorSource
from vehicle_agent.trainer import Trainer


@dataclass
class Traffic:
    """Sizes of what was sent, bytes, one number a message."""

    bodies: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    packets: list[int] = field(default_factory=list)
    """Frames with MQTT's header."""
    releases: list[int] = field(default_factory=list)
    """Frames of releases with MQTT's header."""


class LockstepFleet:
    """Vehicles by number, each with its own sensor; all of them train on one model in turn."""

    def __init__(
        self,
        fleet: str,
        coordinator: Coordinator,
        sensors: list[SensorSource],
        trainers: list[Trainer],
        *,
        codec: CodecConfig,
        error_feedback: float,
        signer: Signer,
        seed: int,
    ) -> None:
        self.fleet, self.coordinator, self.seed, self.signer = fleet, coordinator, seed, signer
        self.sensors, self.trainers = sensors, trainers
        layout = coordinator.layout
        self.layout, self.codec_kind = layout, codec.kind_name
        self.codec = codec.build(layout)
        self.feedback = [
            ErrorFeedback(self.codec, layout.size, decay=error_feedback) for _ in sensors
        ]
        self.traffic = Traffic()

    def run(
        self, updates: int, *, sigma: float, each: Callable[[int], None] = lambda done: None
    ) -> None:
        """So many updates; `each` is told the number done. Raises CodecError if training diverges."""
        published = self.coordinator.published
        bases = [(published.version, published.vector) for _ in self.sensors]
        order = arrivals(len(self.sensors), updates, sigma=sigma, seed=self.seed)
        for number, vehicle in enumerate(order):
            version, start = bases[vehicle]
            self._deliver(vehicle, number, version, start)
            bases[vehicle] = (published.version, published.vector)
            each(number + 1)

    def _deliver(self, vehicle: int, number: int, version: int, start: np.ndarray) -> None:
        update = self._made(vehicle, number, version, start)
        frame = wire.encode(update, self.signer)
        arrived = wire.decode(frame)
        assert isinstance(arrived, Update)
        outcome = self.coordinator.submit(arrived)
        self._judged(vehicle, update, outcome)
        topic = topics.update(self.fleet, update.vehicle, 1)
        self.traffic.bodies.append(len(update.body))
        self.traffic.frames.append(len(frame))
        self.traffic.packets.append(mqtt_publish_bytes(topic, len(frame)))
        if outcome.released:
            release = wire.encode(self.coordinator.published.recent[-1], self.signer)
            topic = topics.release(self.fleet)
            self.traffic.releases.append(mqtt_publish_bytes(topic, len(release)))

    def _made(self, vehicle: int, number: int, version: int, start: np.ndarray) -> Update:
        """What the vehicle sends after a training from `start`."""
        trainer = self.trainers[vehicle]
        frames = self.sensors[vehicle].read(trainer.config.num_examples)
        trained = trainer.train(start, frames, seed=self.seed * 1_000_003 + number)
        return Update(
            vehicle=f"v{vehicle:02d}",
            boot="lockstep",
            sequence=number,
            base_version=version,
            layout=self.layout.fingerprint,
            parts=self.layout.parts,
            num_examples=trained.num_examples,
            local_steps=trained.local_steps,
            captured_from=int(frames.captured_from),
            captured_to=int(frames.captured_to),
            loss=trained.loss,
            codec=self.codec_kind,
            body=self._packed(vehicle, trained.delta),
            generation=self.coordinator.published.generation,
        )

    def _judged(self, vehicle: int, update: Update, outcome: Outcome) -> None:
        if outcome.verdict != "accepted":
            raise RuntimeError(f"update {update.sequence} was {outcome.verdict}: {outcome.detail}")

    def _packed(self, vehicle: int, delta: np.ndarray) -> bytes:
        feedback = self.feedback[vehicle]
        packed = feedback.pack(delta)
        feedback.residual = packed.residual
        return packed.body
