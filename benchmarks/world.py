"""Frames per second of the drone world on one core at 64 px: rendering and each condition.

Run: OMP_NUM_THREADS=1 python benchmarks/world.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from sim.world import CLASSES, CONDITIONS, render, under

TARGET_PER_S = 1_000
NUM_FRAMES = 1_024


def seconds_per_frame(work: Callable[[], object], *, repeats: int = 3) -> float:
    """The best of a few runs, after one that fills the caches."""
    work()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best / NUM_FRAMES


def main() -> None:
    labels = np.arange(NUM_FRAMES) % len(CLASSES)
    frames = render(labels, seed=0)
    rendering = seconds_per_frame(lambda: render(labels, seed=1))
    print(f"{'':14}{'frames/s':>10}{'with render':>13}{'against ' + str(TARGET_PER_S):>14}")
    ratio = 1 / rendering / TARGET_PER_S
    print(f"{'render':14}{1 / rendering:10.0f}{1 / rendering:13.0f}{ratio:13.2f}x")
    for condition in CONDITIONS:
        filtering = seconds_per_frame(lambda name=condition: under(frames, name, 0.7, seed=2))
        both = 1 / (rendering + filtering)
        print(f"{condition:14}{1 / filtering:10.0f}{both:13.0f}{both / TARGET_PER_S:13.2f}x")


if __name__ == "__main__":
    main()
