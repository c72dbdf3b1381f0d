"""Freed memory: what is kept by the process."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

COUNT_FAULTS = """
import resource, sys
import numpy as np
from actors.malloc import keep_freed

if not keep_freed(int(sys.argv[1])):
    sys.exit(7)
def faults():
    np.ones(2_000_000, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range(20):
    after = faults()
print(after - before)
"""


def faults(kept_bytes: int) -> int:
    """Page faults of 20 vectors of 8 MB, each freed before the next one is made."""
    run = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, str(kept_bytes)],
        check=False,
        capture_output=True,
        text=True,
    )
    if run.returncode == 7:
        pytest.skip("this libc takes no such settings")
    return int(run.stdout)


def test_a_vector_takes_the_memory_of_the_one_before():
    assert faults(64 * 2**20) < 0.1 * faults(0)
