"""The HTTP endpoint classifies pictures with the newest release. Knows FastAPI, not Ray.

A request goes through three stages: its body comes in (uploads.py), the picture is unpacked and scaled aside
(decoding.py), and the model's one thread answers. That thread also loads releases, so a request meets one
whole version and a release waits for the request before it.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel, Field

import fleetfl
from actors.config import ServerConfig
from actors.gateway import WaitForVersion
from actors.monitoring.metrics import Metrics
from actors.serving.bodies import instead
from actors.serving.decoding import Busy, Decoding, Lane
from actors.serving.http_edge import HUNG_UP, Edge
from actors.serving.uploads import Hangup, UploadError, Uploads
from fleetfl.codecs import decoder
from fleetfl.events.event_log import EventLog
from fleetfl.pictures import Bounds, PictureError
from fleetfl.protocol.messages import Snapshot
from fleetfl.releases.generations import BEFORE_ALL, order_of

log = logging.getLogger(__name__)

MODEL_WAITING = 1024
"""Scaled pictures, a few kilobytes each, that may wait for the model."""
LOAD_TIMEOUT_S = 300.0
"""A large model on a slow machine may take so long to load and try a release."""


class Refusal(BaseModel):
    """A release that is not served."""

    model_version: int = Field(description="The release that is refused.")
    reason: str = Field(description="Why it is refused.")


class ModelCard(BaseModel):
    """The model that is being served."""

    model_version: int = Field(description="The release that is loaded.")
    sha256: str = Field(description="SHA-256 of the adapter's float32 vector, as in the release.")
    task: str = Field(description="Kind of the task, such as classification.")
    classes: list[str] = Field(description="Names of the classes, or of the numbers it estimates.")
    backbone: str = Field(description="Kind of the frozen backbone.")
    adapter: str = Field(description="Kind of the trained adapter.")
    image_size: int = Field(description="Pixels; pictures are scaled to it.")
    num_values: int = Field(description="Trained values of adapter and head.")
    loaded_at: float = Field(description="Time at which the release was loaded, in UTC seconds.")
    refused: Refusal | None = Field(
        default=None, description="The newest release, if it was refused and this one is served on."
    )


class ReleaseError(ValueError):
    """A release that must not be served; says why."""


class ServedModel:
    """Plain class: `cluster.py` deploys it. Raises ModelError when built from an unfit checkpoint."""

    def __init__(self, config: ServerConfig, wait_for_version: WaitForVersion) -> None:
        assert config.http is not None, "cluster.py deploys none without an endpoint"
        self.config, self.http, self.wait_for_version = config, config.http, wait_for_version
        chosen = config.model.model_copy(update={"precision": self.http.precision})
        self.model = chosen.build(seed=config.seed, threads=1)
        self.card: ModelCard | None = None
        self.refused: Refusal | None = None
        self.following: asyncio.Task[None] | None = None
        self.uploads = Uploads(
            max_body_bytes=self.http.max_body_bytes, timeout_s=self.http.body_timeout_s
        )
        timeout_s, one_thread = self.http.answer_timeout_s, partial(torch.set_num_threads, 1)
        self.decoding = Decoding(
            Bounds(self.http.max_pixels, self.http.max_body_bytes),
            image_size=self.model.image_size,
            max_waiting=self.http.max_waiting,
            timeout_s=timeout_s,
            prepare=one_thread,
        )
        self.model_lane = Lane(
            "the model",
            max_waiting=MODEL_WAITING,
            timeout_s=timeout_s,
            prepare=one_thread,  # torch takes it for the calling thread alone
        )
        self.metrics = Metrics()
        self.requests = self.metrics.counter("fleetfl_requests", "Answers by status code.", "code")
        self.seconds = self.metrics.histogram(
            "fleetfl_request_seconds", "Seconds from a request's first byte to its answer."
        )
        self.refusals = self.metrics.counter(
            "fleetfl_releases_refused",
            "Releases that the endpoint did not take, such as diverged ones.",
        )
        self.metrics.gauge(
            "fleetfl_served_version",
            "Version of the loaded release; -1 before the first.",
            self._version,
        )
        self.events = EventLog(
            config.state / "events.jsonl", bounds=config.events, watch=self.metrics.heard
        )
        self.events.write("replica_started", pid=os.getpid(), replicas=self.http.replicas)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve asks for the application under this name."""
        return build_app(self)

    def _version(self) -> int:
        return -1 if self.card is None else self.card.model_version

    async def measured(self) -> list[Metric]:
        """The replica's metrics at this moment, in Prometheus' types."""
        return self.metrics.collected()

    async def follow(self) -> None:
        """Load each newest release until cancelled."""
        seen = BEFORE_ALL
        while True:
            try:
                snapshot = await self.wait_for_version(seen)
                why = await self.model_lane.run(self._load, snapshot, timeout_s=LOAD_TIMEOUT_S)
                seen = order_of(snapshot)
                if why:
                    self._refuse(snapshot.version, why)
            except Exception:  # the loop must live: the endpoint goes on with what it has
                log.exception("no newer release; serving version %d", self._version())
                await asyncio.sleep(1.0)

    def _load(self, snapshot: Snapshot) -> str:
        """Load the release if its answers are finite; else keep the old one and give the reason."""
        before = self.model.vector()
        try:
            vector = decoder(snapshot.codec, self.model.layout).decode(snapshot.body)
            self.model.load(vector)
            self._try()
        except Exception as unfit:
            self.model.load(before)
            return str(unfit) or type(unfit).__name__
        self.refused = None
        self.card = ModelCard(
            model_version=snapshot.version,
            sha256=snapshot.sha256.hex(),
            task=self.config.model.task.kind_name,
            classes=list(self.model.task.targets),
            backbone=self.config.model.backbone.kind_name,
            adapter=self.config.model.adapter.kind_name,
            image_size=self.model.image_size,
            num_values=self.model.layout.size,
            loaded_at=time.time(),
        )
        self.events.write("serving", version=snapshot.version)
        return ""

    def _try(self) -> None:
        """Raises ReleaseError unless the answers to a black, a white and two random pictures are finite."""
        side = self.model.image_size
        random = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
        probe = np.concatenate([np.zeros_like(random[:1]), np.full_like(random[:1], 255), random])
        answers = self.model.predictions(probe)
        if not np.isfinite(answers).all():
            raise ReleaseError(
                "its answers to probe pictures are not finite: training has diverged"
            )

    def _refuse(self, version: int, reason: str) -> None:
        log.error(
            "release %d is refused, version %d is served on: %s", version, self._version(), reason
        )
        self.refused = Refusal(model_version=version, reason=reason)
        if self.card is not None:
            self.card = self.card.model_copy(update={"refused": self.refused})
        self.refusals.inc()
        self.events.write("release_refused", version=version, reason=reason)

    async def answer(self, body: bytes) -> BaseModel:
        """Answer for an encoded picture. Raises PictureError, Busy, or ReleaseError for a bad answer."""
        pixels = await self.decoding.run(body, self._scaled)
        return await self.model_lane.run(self._answer, pixels)

    def _scaled(self, image: np.ndarray) -> torch.Tensor:
        try:
            # [None] by NumPy: torch's has other strides, takes another path, and gives other last bits.
            return self.model.scaled(torch.from_numpy(image[None]))
        except Exception as failed:  # such as no memory left
            raise PictureError(f"cannot be scaled: {type(failed).__name__}") from failed

    def _answer(self, pixels: torch.Tensor) -> BaseModel:
        """Answer for scaled pixels, in the model's thread, so that card and weights match."""
        assert self.card is not None
        prediction = self.model.answers(pixels)[0]
        if not np.isfinite(prediction).all():
            raise ReleaseError(
                f"version {self.card.model_version} has no finite answer to this picture"
            )
        return self.model.task.answer(prediction, model_version=self.card.model_version)

    def hindrance(self) -> str:
        """Why this replica is not ready; empty if it is."""
        if self.card is None:
            why = "no release loaded yet"
            refused = self.refused
            return (
                why
                if refused is None
                else f"{why}: {refused.model_version} is refused: {refused.reason}"
            )
        if self.following is None or self.following.done():
            return "releases are not being followed"
        busy_s = self.model_lane.busy_s
        if busy_s > self.http.answer_timeout_s:
            return f"the model has been busy for {busy_s:.0f} s"
        return ""


def build_app(served: ServedModel) -> FastAPI:
    """The HTTP face of one replica."""
    task = served.model.task

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        served.following = asyncio.create_task(served.follow(), name="serving.follow")
        yield
        served.following.cancel()

    app = FastAPI(
        title="fleetfl",
        version=fleetfl.__version__,
        description=__doc__ or "",
        lifespan=lifespan,
        redirect_slashes=False,  # to whatever host a request names
    )
    app.add_middleware(Edge, requests=served.requests, seconds=served.seconds)

    def ready() -> ModelCard:
        if served.card is None:
            raise unavailable(served.hindrance())
        return served.card

    @app.post(
        f"/v1/{task.route}",
        responses={code: {"description": why} for code, why in REFUSALS.items()},
        response_model=task.answer_type,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    kind: {"schema": {"type": "string", "format": "binary"}}
                    for kind in ("image/png", "image/jpeg", "image/webp")
                },
            }
        },
    )
    async def answer(request: Request, response: Response) -> Any:
        """Answer about the PNG, JPEG or WebP picture in the body."""
        ready()
        try:
            body = await served.uploads.body(request.receive, request.headers.get("content-length"))
        except Hangup:
            return Response(status_code=HUNG_UP)
        except UploadError as bad:
            raise HTTPException(bad.status, str(bad), {"Connection": "close"}) from bad
        try:
            told: Any = await served.answer(body)
        except PictureError as bad:
            raise HTTPException(400, _explained(bad, body, request)) from bad
        except (Busy, ReleaseError) as hindered:
            raise unavailable(str(hindered)) from hindered
        response.headers["X-Model-Version"] = str(told.model_version)
        return told

    @app.get("/v1/model")
    async def model() -> ModelCard:
        """Describe the model that is being served."""
        return ready()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Answer that the process is alive."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """Answer 200 once a release is loaded and newer ones are being followed; 503 until then."""
        if why := served.hindrance():
            raise unavailable(why)
        about = {"status": "ready", "model_version": ready().model_version}
        return about if served.refused is None else {**about, "refused": served.refused}

    return app


REFUSALS = {
    400: "The body is not a whole picture within the bounds; says what was found and what to send.",
    408: "The body did not come in time.",
    413: "The body is too long.",
    503: "No release is loaded, or too many requests wait; try again.",
}


def unavailable(why: str) -> HTTPException:
    """The 503 answer that asks clients to try again after a second."""
    return HTTPException(503, why, {"Retry-After": "1"})


def _explained(bad: PictureError, body: bytes, request: Request) -> str:
    what = instead(
        body,
        request.headers.get("content-type", ""),
        request.headers.get("content-encoding", ""),
    )
    return f"body of {len(body)} bytes is {bad}" + (f"; {what}" if what else "")
