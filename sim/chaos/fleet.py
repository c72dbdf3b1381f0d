"""Vehicles of a chaos run as child processes that can be started, killed and given orders."""

import multiprocessing
import sqlite3
from contextlib import closing
from multiprocessing.process import BaseProcess
from typing import Any

import msgspec

from fleetfl.events.event_log import EventReader
from sim.chaos import vehicle
from sim.chaos.ledger import Entry
from sim.chaos.tcp_proxy import Proxy
from sim.chaos.vehicle import RESTING, Orders, Settings

# Forked from a process that has imported everything once, so that an agent starts in some 10 ms.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["sim.chaos.vehicle", "paho.mqtt.client"])


HELD = "SELECT version, sha256 FROM held"


class VehicleProcess:
    """One vehicle as a process, its link to the broker, and the files that it leaves."""

    def __init__(self, settings: Settings, link: Proxy) -> None:
        self.settings = settings
        self.link = link
        """Proxy between this vehicle alone and the broker."""
        self.name, self.folder = settings.name, settings.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.orders = Orders()
        self.orders.write(self.folder)
        self.process: BaseProcess | None = None

    def start(self) -> None:
        self.process = _processes.Process(
            target=vehicle.run, args=(self.settings,), name=self.name, daemon=True
        )
        self.process.start()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    def order(self, **orders: Any) -> None:
        self.orders = msgspec.structs.replace(self.orders, **orders)
        self.orders.write(self.folder)

    @property
    def is_done(self) -> bool:
        """Whether the vehicle has stopped training and every update of its has a final outcome."""
        return (self.folder / RESTING).exists() and all(e.verdict for e in self.record())

    def record(self) -> list[Entry]:
        """Every update that entered the outbox, in order of production."""
        rows = self._rows("SELECT id, boot, sequence, verdict FROM produced ORDER BY id")
        return [
            Entry(number, (self.name, boot, sequence), verdict)
            for number, boot, sequence, verdict in rows
        ]

    def held(self) -> set[tuple[int, str]]:
        """The release in the outbox that the newest update was trained from: (version, SHA-256 in
        hexadecimal).
        """
        return {(version, digest.hex()) for version, digest in self._rows(HELD)}

    def _rows(self, query: str) -> list[Any]:
        path = self.folder / "outbox.db"
        if not path.exists():
            return []
        # Not an Outbox: that belongs to the vehicle, which may be writing.
        with closing(sqlite3.connect(path, timeout=10)) as outbox:
            if not outbox.execute("SELECT 1 FROM sqlite_master WHERE name = 'held'").fetchone():
                return []  # just being made
            return outbox.execute(query).fetchall()

    def receipts(self) -> list[dict[str, Any]]:
        """All receipts that arrived, in order of arrival, with repeated ones."""
        path = self.folder / "receipts.jsonl"
        return EventReader(path).read() if path.exists() else []
