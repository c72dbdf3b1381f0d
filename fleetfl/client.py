"""A client of the endpoint, for scripts and notebooks: `fleetfl.Client(url).classify("frame.png")`.

It needs nothing but the standard library, and Pillow for pictures that are arrays.
"""

import io
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fleetfl import FleetflError

MAX_ANSWER_BYTES = 16 * 2**20


class ClientError(FleetflError, RuntimeError):
    """The endpoint cannot be reached or has no answer; says why in the endpoint's own words."""

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status
        """HTTP status: 400 for what is no picture, 503 for a server that is not ready; None without one."""


@dataclass(frozen=True)
class Classification:
    """The endpoint's answer to one picture."""

    label: str
    """Name of the most probable class."""
    probabilities: dict[str, float]
    """Probability of each class by its name; they sum to 1."""
    model_version: int
    """Version of the release that answered."""


class Client:
    """Asks one endpoint. Holds no connection, so it may be shared by threads and needs no closing."""

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        """`url` is the endpoint's, such as http://127.0.0.1:8000. Raises ClientError for another scheme."""
        if urlsplit(url).scheme not in ("http", "https"):
            raise ClientError(f"{url!r:.200}: expected an http or https URL")
        self.url, self.timeout_s = url.rstrip("/"), timeout_s

    def classify(self, image: Any) -> Classification:
        """Label and probabilities of one picture.

        `image` is the path of a PNG, JPEG or WebP file, such a file's bytes, an array uint8 [H, W, 3], or
        a Pillow image. Raises ClientError, or OSError for a file that cannot be read.
        """
        told = self._asked("/v1/classify", encoded(image))
        try:
            return Classification(told["label"], told["probabilities"], told["model_version"])
        except (KeyError, TypeError) as odd:
            raise ClientError(f"{self.url} gave no classification: {told!r:.200}") from odd

    def model(self) -> dict[str, Any]:
        """Facts about the served model: version, classes, backbone and more. Raises ClientError."""
        told = self._asked("/v1/model")
        if not isinstance(told, dict):
            raise ClientError(f"{self.url} gave no model: {told!r:.200}")
        return told

    def _asked(self, path: str, body: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/octet-stream"} if body is not None else {}
        request = urllib.request.Request(self.url + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                return json.loads(answer.read(MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as refused:
            raise ClientError(f"{self.url}: {_detail(refused)}", refused.code) from refused
        except Exception as failed:  # whatever links, proxies and other servers make of it
            why = getattr(failed, "reason", failed)
            raise ClientError(f"{self.url + path} does not answer: {why!s:.300}") from failed


def encoded(image: Any) -> bytes:
    """Bytes of the picture for a request's body. Raises TypeError for what is no picture."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, (str, PathLike)):
        return Path(image).read_bytes()
    from PIL import Image

    if not isinstance(image, Image.Image):
        if not hasattr(image, "shape"):
            raise TypeError(
                f"{type(image).__name__} is no picture: expected a path, bytes or array"
            )
        image = Image.fromarray(image)
    packed = io.BytesIO()
    image.save(packed, "PNG")
    return packed.getvalue()


def _detail(refused: urllib.error.HTTPError) -> str:
    try:
        content = refused.read(MAX_ANSWER_BYTES)
        told = json.loads(content)
        return str(told["detail"]) if isinstance(told, dict) else content.decode("utf-8", "replace")
    except Exception:  # no answer of ours
        return f"HTTP status {refused.code} {refused.reason}"
