"""Receives request bodies, each bounded in bytes and time, and all together. Knows ASGI, no model.

An upload holds no place in any queue. When all bodies together outgrow their bound, the longest-running
upload is dropped, so that stalled senders make room for the others.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
MAX_UPLOADS = 512
TOTAL_BODIES = 16
"""Bodies of the largest size that all uploads together may hold."""


class UploadError(Exception):
    """A refused request body; `status` is the HTTP status code."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Hangup(Exception):
    """The client is gone; there is nobody to answer."""


@dataclass(eq=False)
class _Upload:
    over: asyncio.Future[None]
    """A future that is done when this upload has to make room for others."""
    body: bytearray = field(default_factory=bytearray)


class Uploads:
    """The uploads of one replica, bounded together to `TOTAL_BODIES` bodies of the largest size."""

    def __init__(self, *, max_body_bytes: int, timeout_s: float) -> None:
        self.max_body_bytes, self.timeout_s = max_body_bytes, timeout_s
        self.max_bytes = TOTAL_BODIES * max_body_bytes
        self.under_way: dict[_Upload, None] = {}
        """Uploads in progress, in the order that they began."""

    @property
    def num_bytes(self) -> int:
        """Bytes held by all uploads in progress."""
        return sum(len(upload.body) for upload in self.under_way)

    async def body(self, receive: Receive, declared: str | None = None) -> bytes:
        """The whole body; `declared` is what Content-Length says. Raises UploadError or Hangup."""
        too_long = UploadError(413, f"body is over {self.max_body_bytes} bytes")
        size = declared if declared and declared.isascii() and declared.isdigit() else "0"
        if len(size) > 18 or int(size) > self.max_body_bytes:
            raise too_long
        clock = asyncio.get_running_loop().time
        until, upload = clock() + self.timeout_s, _Upload(asyncio.Future())
        self.under_way[upload] = None
        self._make_room()
        try:
            while True:
                message = await self._next(receive, upload, until - clock())
                if message["type"] == "http.disconnect":
                    raise Hangup
                upload.body += message.get("body", b"")
                if len(upload.body) > self.max_body_bytes:
                    raise too_long
                if not message.get("more_body", False):
                    return bytes(upload.body)
                self._make_room()
        finally:
            self.under_way.pop(upload, None)

    async def _next(
        self, receive: Receive, upload: _Upload, left_s: float
    ) -> MutableMapping[str, Any]:
        part = asyncio.ensure_future(receive())
        try:
            await asyncio.wait(
                {part, upload.over},
                timeout=max(0.0, left_s),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if upload.over.done():
                raise UploadError(408, "other bodies came meanwhile; send this one again, faster")
            if not part.done():
                raise UploadError(408, f"the body took longer than {self.timeout_s:g} s")
            return part.result()
        finally:
            part.cancel()

    def _make_room(self) -> None:
        while len(self.under_way) > MAX_UPLOADS or self.num_bytes > self.max_bytes:
            slowest = next(iter(self.under_way))
            del self.under_way[slowest]
            slowest.over.set_result(None)
