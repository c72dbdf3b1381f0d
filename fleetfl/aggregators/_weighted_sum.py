"""The weighted sum of float32 vectors, in blocks that stay in cache: each vector is read from memory once.

Every value of the sum is a chain of products and sums in the order of the vectors, each rounded to
float32. numpy fuses none of them, so the bits do not depend on the block, the number of threads, the
processor's vector instructions, or how many vectors are added at a time.
"""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

BLOCK = 1 << 18
"""Number of values summed at a time: 1 MiB of sum and 1 MiB of products. Fewer read memory more slowly."""

BLOCKS_A_THREAD = 1
"""Least number of blocks for each thread. On idle cores a second thread gains from the second block on; on
busy ones it costs up to half."""

MAX_THREADS = 8
"""Most threads of one sum: a few cores already wait for memory."""


def weighted_sum(
    vectors: Sequence[np.ndarray],
    weights: Sequence[float],
    *,
    onto: np.ndarray | None = None,
    divisor: float = 1.0,
    num_threads: int | None = None,
) -> np.ndarray:
    """(onto + sum_i weights[i] vectors[i]) / divisor, float32 [P], of one or more vectors, float32 [P].

    `onto` is changed in place and returned; without it the sum begins with the first product. By
    default long vectors get a thread a core. What overflows is infinite, silently.
    """
    size = vectors[0].size
    total = np.empty(size, np.float32) if onto is None else onto
    factors = [np.float32(weight) for weight in weights]
    num_blocks = -(-size // BLOCK)
    length = -(-size // num_blocks)  # all as long, so that threads end together
    starts = deque(range(0, size, length))

    def work() -> None:
        scratch = np.empty(length, np.float32)
        # Set here because a thread begins with numpy's defaults, not with its maker's.
        with np.errstate(over="ignore", invalid="ignore"):
            while starts:
                try:
                    block = slice(start := starts.popleft(), start + length)
                except IndexError:  # another thread took the last one
                    return
                parts = [vector[block] for vector in vectors]
                _fold(parts, factors, total[block], scratch, begun=onto is not None)
                if divisor != 1.0:
                    np.divide(total[block], np.float32(divisor), out=total[block])

    useful = min(_num_cores(), MAX_THREADS, max(1, num_blocks // BLOCKS_A_THREAD))
    others = [_threads(os.getpid()).submit(work) for _ in range((num_threads or useful) - 1)]
    work()
    for other in others:
        other.result()
    return total


def _fold(
    parts: Sequence[np.ndarray],
    factors: Sequence[np.float32],
    total: np.ndarray,
    scratch: np.ndarray,
    *,
    begun: bool,
) -> None:
    """Add the products of one block to `total`; if it has not begun, the first is written there."""
    for part, factor in zip(parts, factors, strict=True):
        if not begun:
            np.multiply(part, factor, out=total)
            begun = True
        elif factor == 1:  # a fresh update: the product would have its bits
            np.add(total, part, out=total)
        else:
            product = np.multiply(part, factor, out=scratch[: part.size])
            np.add(total, product, out=total)


@cache
def _threads(pid: int) -> ThreadPoolExecutor:
    """Threads of the process `pid`: a forked child has none of its parent's."""
    return ThreadPoolExecutor(MAX_THREADS - 1, thread_name_prefix=f"weighted-sum-{pid}")


def _num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
