"""Importing torch and timm, which takes seconds, in less time."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python's garbage collector rests.

    torch and timm make 600,000 objects that stay, and it would look at them again and again meanwhile: a
    fifth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
