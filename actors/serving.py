"""The endpoint: pictures in, labels out, always from the newest release. Knows FastAPI, not Ray.

One thread runs both inference and the loading of releases, so a request meets one whole version
and a release waits for the request before it.
"""

import asyncio
import io
import logging
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from PIL import Image, UnidentifiedImageError
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel, Field

import fleetfl
from actors.config import ServerConfig
from actors.gateway import Newer
from actors.metrics import Metrics
from fleetfl.codecs import decoder
from fleetfl.messages import Snapshot
from fleetfl.telemetry import EventLog

log = logging.getLogger(__name__)


class Classification(BaseModel):
    """Answer to one picture."""

    label: str
    probabilities: dict[str, float] = Field(description="One for each class; they sum to 1.")
    model_version: int = Field(description="The release that answered.")


class ModelCard(BaseModel):
    """What is being served."""

    model_version: int
    sha256: str = Field(description="Of the adapter's float32 vector, as in the release.")
    classes: list[str]
    backbone: str
    adapter: str
    image_size: int = Field(description="Pixels; pictures are scaled to it.")
    num_values: int = Field(description="Adapter and head.")
    loaded_at: float = Field(description="UTC seconds.")


class BadPicture(ValueError):
    """A body that is not a picture we take; says what was expected."""


class ServedModel:
    """Plain class: `cluster.py` deploys it. Raises ModelError when built from an unfit checkpoint."""

    def __init__(self, config: ServerConfig, newer: Newer) -> None:
        assert config.http is not None, "cluster.py deploys none without an endpoint"
        self.config, self.http, self.newer = config, config.http, newer
        chosen = config.model.model_copy(update={"precision": self.http.precision})
        self.model = chosen.build(seed=config.seed, threads=1)
        self.card: ModelCard | None = None
        self.one_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.following: asyncio.Task[None] | None = None
        self.metrics = Metrics()
        self.requests = self.metrics.counter("fleetfl_requests", "Answers by status code.", "code")
        self.seconds = self.metrics.histogram("fleetfl_request_seconds", "From body to answer.")
        self.metrics.gauge("fleetfl_served_version", "Loaded; -1 before the first.", self._version)
        self.events = EventLog(config.state / "events.jsonl", watch=self.metrics.heard)
        self.events.write("replica_started", pid=os.getpid(), replicas=self.http.replicas)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve asks for the application under this name."""
        return build_app(self)

    def _version(self) -> int:
        return -1 if self.card is None else self.card.model_version

    async def measured(self) -> list[Metric]:
        """What it counts and measures."""
        return self.metrics.collected()

    async def follow(self) -> None:
        """Load each newest release until cancelled."""
        while True:
            version = self._version()
            try:
                snapshot = await self.newer(version)
                await self.in_turn(self._load, snapshot)
            except Exception:  # the loop must live: the endpoint goes on with what it has
                log.exception("no newer release; serving version %d", version)
                await asyncio.sleep(1.0)

    async def in_turn(self, call: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.one_thread, call, *arguments)

    def _load(self, snapshot: Snapshot) -> None:
        vector = decoder(snapshot.codec, self.model.layout).decode(snapshot.body)
        self.model.load(vector)
        self.card = ModelCard(
            model_version=snapshot.version,
            sha256=snapshot.sha256.hex(),
            classes=list(self.config.model.classes),
            backbone=self.config.model.backbone.kind_name,
            adapter=self.config.model.adapter.kind_name,
            image_size=self.model.image_size,
            num_values=self.model.layout.size,
            loaded_at=time.time(),
        )
        self.events.write("serving", version=snapshot.version)

    def classify(self, body: bytes) -> Classification:
        """Raises BadPicture."""
        assert self.card is not None
        image = picture(body, self.http.max_pixels)
        chances = self.model.probabilities(image[None])[0]
        classes = self.config.model.classes
        return Classification(
            label=classes[int(chances.argmax())],
            probabilities={name: float(p) for name, p in zip(classes, chances, strict=True)},
            model_version=self.card.model_version,
        )

    @property
    def is_ready(self) -> bool:
        return self.card is not None and self.following is not None and not self.following.done()


def picture(body: bytes, max_pixels: int) -> np.ndarray:
    """PNG or JPEG -> uint8 [H, W, 3]. Raises BadPicture naming what is wrong."""
    try:
        with Image.open(io.BytesIO(body), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > max_pixels:
                raise BadPicture(
                    f"picture of {image.width} x {image.height}, expected at most {max_pixels} pixels"
                )
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as broken:
        # Pillow raises SyntaxError for a broken PNG chunk.
        raise BadPicture(
            f"body of {len(body)} bytes is not a whole PNG or JPEG picture: {broken}"
        ) from broken


def build_app(served: ServedModel) -> FastAPI:
    """The HTTP face of one replica."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        served.following = asyncio.create_task(served.follow(), name="serving.follow")
        yield
        served.following.cancel()

    app = FastAPI(
        title="fleetfl", version=fleetfl.__version__, description=__doc__ or "", lifespan=lifespan
    )

    @app.middleware("http")
    async def counted(request: Request, answer: Any) -> Response:
        began, code = time.monotonic(), 500
        try:
            response: Response = await answer(request)
            code = response.status_code
        finally:
            served.requests.labels(code).inc()
            served.seconds.observe(time.monotonic() - began)
        return response

    def ready() -> ModelCard:
        if served.card is None:
            raise HTTPException(503, "no release loaded yet", {"Retry-After": "1"})
        return served.card

    @app.post(
        "/v1/classify",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    kind: {"schema": {"type": "string", "format": "binary"}}
                    for kind in ("image/png", "image/jpeg")
                },
            }
        },
    )
    async def classify(request: Request, response: Response) -> Classification:
        """Classify the PNG or JPEG picture in the body."""
        ready()
        limit = served.http.max_body_bytes
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise HTTPException(413, f"body is over {limit} bytes")
        try:
            answer: Classification = await served.in_turn(served.classify, bytes(body))
        except BadPicture as bad:
            raise HTTPException(400, str(bad)) from bad
        response.headers["X-Model-Version"] = str(answer.model_version)
        return answer

    @app.get("/v1/model")
    async def model() -> ModelCard:
        """What is being served."""
        return ready()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """A release is loaded and newer ones are being followed; 503 until then."""
        card = ready()
        if not served.is_ready:
            raise HTTPException(503, "releases are not being followed")
        return {"status": "ready", "model_version": card.model_version}

    return app
