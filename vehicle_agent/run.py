"""A vehicle as a process: builds the agent from settings, connects it, and ends it on a signal."""

import asyncio
import contextlib
import logging
import math
import secrets
import signal
from pathlib import Path

from fleetfl.protocol.signing import OneKey, Signer
from fleetfl.storage import client_ids
from fleetfl.storage.state_lock import only_for_owner, state_lock
from fleetfl.task_group import together
from fleetfl.transport import Will
from vehicle_agent.agent import Agent, Identity
from vehicle_agent.config import VehicleConfig
from vehicle_agent.outbox import Outbox, OutboxError
from vehicle_agent.ports import SensorAside, TrainerAside
from vehicle_agent.sensors import opened
from vehicle_agent.trainer import Trainer

log = logging.getLogger(__name__)


OPEN_AGAIN_S = 10.0


async def run(config: VehicleConfig) -> None:
    """Until SIGTERM or SIGINT. An unreachable broker is waited for.

    Raises ModelError, SensorError or IdentityError for a model, source or key that cannot be used, and
    TenancyError if another agent has the state folder.
    """
    only_for_owner()
    with state_lock(config.state, "vehicle"):
        await _run(config)


async def _run(config: VehicleConfig) -> None:
    model = config.model.build(seed=config.seed, threads=config.threads)
    is_used = (config.state / "outbox.db").exists()
    outbox = await _opened(config)
    if not is_used:
        _note_session(config)
    memory = outbox.memory()
    trainer = Trainer(config.trainer, model, memory.counts_by(model.layout.means("classes")))
    sensor = opened(config.sensor, model.task.targets, num_read=memory.num_read)
    identity = Identity(
        config.fleet,
        config.name,
        boot=secrets.token_urlsafe(4),
        num_partitions=config.num_partitions,
        seed=config.seed,
        signer=Signer.from_file(config.fleet, config.key_file),
    )
    server_key = None if config.server_key is None else OneKey(config.fleet, config.server_key)
    will = Will(identity.status_topic, identity.offline())
    log.info(
        "vehicle %s boot %s: %d values to train", config.name, identity.boot, model.layout.size
    )

    async def live() -> None:
        connection = config.transport.connect(
            client_ids.vehicle(config.fleet, config.name),
            clean_session=False,
            will=will,
            patience_s=math.inf,
        )
        async with connection as transport:
            agent = Agent(
                config.agent,
                identity,
                transport=transport,
                sensor=SensorAside(sensor),
                trainer=TrainerAside(trainer, trainer.sums),
                layout=model.layout,
                codec=config.codec,
                error_feedback=config.error_feedback,
                frames_per_update=config.trainer.num_examples,
                outbox=outbox,
                server_key=server_key,
            )
            try:
                await together(agent=agent.run(), session=_forget_old_session(config))
            finally:
                await agent.report("offline", timeout_s=2.0)

    life = asyncio.create_task(live(), name="vehicle")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, life.cancel)
    try:
        await life
    except asyncio.CancelledError:
        log.info("vehicle %s: asked to stop; %d updates kept for later", config.name, len(outbox))
    finally:
        outbox.close()


async def _forget_old_session(config: VehicleConfig) -> None:
    """Once for a state folder of earlier code: a broker would keep releases for its id for ever."""
    if _session_note(config).exists():
        return
    if await config.transport.forget(client_ids.vehicle_before(config.fleet, config.name)):
        _note_session(config)


def _note_session(config: VehicleConfig) -> None:
    """No code but this has a session for the folder.

    Written before the first connection, for which a vehicle may wait for days: the next start must not take
    the folder for one of earlier code.
    """
    with contextlib.suppress(OSError):  # a full disk: it is done again at the next start
        id_now = client_ids.vehicle(config.fleet, config.name)
        _session_note(config).write_text(id_now + "\n")


def _session_note(config: VehicleConfig) -> Path:
    return config.state / "session"


async def _opened(config: VehicleConfig) -> Outbox:
    """The outbox; a disk that is full or read-only is waited for."""
    while True:
        try:
            return Outbox(config.state / "outbox.db", config.outbox)
        except OutboxError as unfit:
            log.error("vehicle %s waits: %s", config.name, unfit)
            await asyncio.sleep(OPEN_AGAIN_S)
