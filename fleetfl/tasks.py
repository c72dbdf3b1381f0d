"""Tasks that live and die together. (asyncio.TaskGroup needs Python 3.11.)"""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def together(**coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run them as tasks of these names until all are done.

    The first exception cancels the others and is raised; so does cancellation from outside.
    """
    tasks = [asyncio.create_task(work, name=name) for name, work in coroutines.items()]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
