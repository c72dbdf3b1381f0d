"""ASGI middleware that counts and times requests, and answers HEAD as GET without a body. Knows no model."""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import Counter, Histogram

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Message]], Send], Awaitable[None]]
HUNG_UP = 499
"""Status code, by nginx's convention, for a client that left before its answer."""


class Edge:
    """Wraps an ASGI application with request metrics and HEAD support."""

    def __init__(self, app: App, *, requests: Counter, seconds: Histogram) -> None:
        self.app, self.requests, self.seconds = app, requests, seconds

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Send,
    ) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, code, is_head = time.monotonic(), HUNG_UP, scope["method"] == "HEAD"

        async def sent(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        try:
            await self.app({**scope, "method": "GET"} if is_head else scope, receive, sent)
        except Exception:
            code = 500
            raise
        finally:
            self.requests.labels(code).inc()
            self.seconds.observe(time.monotonic() - began)
