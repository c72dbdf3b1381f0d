"""Tasks that live and die together. (asyncio.TaskGroup needs Python 3.11.)"""

import asyncio
from collections.abc import Coroutine
from typing import Any

AGAIN_S = 5.0
"""Seconds between two cancellations of a task that goes on; its cleanup may take as long."""


async def together(**coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run them as tasks of these names until all are done.

    The first exception cancels the others and is raised; so does cancellation from outside.
    """
    tasks = [asyncio.create_task(work, name=name) for name, work in coroutines.items()]
    try:
        await asyncio.gather(*tasks)
    finally:
        # More than once: before Python 3.12 asyncio.wait_for may swallow a cancellation.
        while under_way := [task for task in tasks if not task.done()]:
            for task in under_way:
                task.cancel()
            await asyncio.wait(under_way, timeout=AGAIN_S)
