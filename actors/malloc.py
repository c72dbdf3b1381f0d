"""Makes libc keep freed memory that is soon asked for again. Knows libc, and no vector."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 * 2**20
"""The largest M_MMAP_THRESHOLD that glibc accepts, in bytes."""


def keep_freed(max_bytes: int) -> bool:
    """Return freed memory to the system only above `max_bytes`; False where libc cannot.

    By default glibc gives back each vector of 128 KB or more, and the kernel clears the same pages again
    for the next one: a tenth of the time that summing takes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, max_bytes) and mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT))
