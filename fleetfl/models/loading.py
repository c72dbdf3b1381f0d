"""Importing torch and timm, which takes seconds, in less time."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Context in which Python's garbage collector is off.

    torch and timm make 600,000 objects that stay, and looking at them again and again would take a fifth of
    the import's time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
