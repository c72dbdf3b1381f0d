"""A perception engineer's client: asks the endpoint about held-out frames from start to end."""

import io
import threading
import time
from collections import Counter

import httpx
import numpy as np
from PIL import Image

from fleetfl.evaluation.held_out import HeldOut
from fleetfl.events.event_log import EventLog
from fleetfl.tasks import Task
from sim.report.measurement import Measurement


class Client:
    """One connection. `measure` asks about every frame; a thread asks steadily between measurements."""

    def __init__(self, url: str, held_out: HeldOut, task: Task, events: EventLog) -> None:
        self.held_out, self.task, self.events = held_out, task, events
        self.http = httpx.Client(base_url=url, timeout=30.0, trust_env=False)
        self.bodies = [png(image) for image in held_out.images]
        self.requests = self.failures = 0
        self.latencies_s: list[float] = []
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None

    def ask(self, frame: int) -> tuple[float, int] | None:
        """(score, version) for a held-out frame; None, counted and logged, if it fails."""
        self.requests += 1
        began = time.perf_counter()
        try:
            response = self.http.post(
                f"/v1/{self.task.route}",
                content=self.bodies[frame],
                headers={"Content-Type": "image/png"},
            )
            response.raise_for_status()
            answer = response.json()
            told = self.task.prediction(answer)[None], int(answer["model_version"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as failed:
            self.failures += 1
            self.events.write("http_failed", detail=f"{type(failed).__name__}: {failed}")
            return None
        self.latencies_s.append(time.perf_counter() - began)
        target = self.held_out.labels[frame : frame + 1]
        return float(self.task.scores(told[0], target)[0]), told[1]

    def measure(self) -> Measurement:
        """Ask about all frames; those that fail count as wrong."""
        scores = np.zeros(len(self.bodies))
        version = -1
        for frame in range(len(self.bodies)):
            answer = self.ask(frame)
            if answer is not None:
                scores[frame], version = answer
        accuracy, by_condition = self.held_out.by_condition(scores)
        self.events.write("measured", version=version, accuracy=accuracy, by_condition=by_condition)
        return Measurement(version, accuracy, by_condition)

    def start(self, rate_per_s: float) -> None:
        """Ask steadily, one frame after the other, until `stop`; a `probe` event sums up each second."""
        self.stopping.clear()
        self.thread = threading.Thread(target=self._steadily, args=(rate_per_s,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        if self.thread is not None:
            self.stopping.set()
            self.thread.join()
            self.thread = None

    def version(self) -> int:
        """What the endpoint serves now. Raises httpx.HTTPError."""
        response = self.http.get("/v1/model")
        response.raise_for_status()
        return response.json()["model_version"]

    def close(self) -> None:
        self.stop()
        self.http.close()

    def _steadily(self, rate_per_s: float) -> None:
        order = np.random.default_rng(0).permutation(len(self.bodies))
        asked, counts, version = 0, Counter[str](), -1
        began = reported = time.monotonic()
        while not self.stopping.wait(max(0.0, began + asked / rate_per_s - time.monotonic())):
            frame = int(order[asked % len(order)])
            asked += 1
            answer = self.ask(frame)
            counts["requests"] += 1
            if answer is None:
                counts["failures"] += 1
            else:
                counts["right"] += int(answer[0] == 1)
                version = answer[1]
            if time.monotonic() - reported >= 1.0:
                self.events.write(
                    "probe",
                    version=version,
                    requests=counts["requests"],
                    failures=counts["failures"],
                    right=int(counts["right"]),
                )
                reported, counts = time.monotonic(), Counter[str]()


def png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
