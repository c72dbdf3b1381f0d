"""Memory that a process frees and soon asks for again, kept by it in between. Knows libc, and no vector."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 * 2**20
"""glibc takes no larger M_MMAP_THRESHOLD."""


def keep_freed(max_bytes: int) -> bool:
    """Give back to the system only what lies free beyond so many bytes; False where libc cannot.

    By default glibc gives back each vector of 128 KB or more, and the kernel clears the same pages again
    for the next one: a tenth of the time that summing takes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, max_bytes) and mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT))
