"""A processor's own instructions change the last bits of a sum: runs on virtual time agree on older ones."""

import json
import os
import subprocess
import sys

import pytest

from sim.fleet import instructions

pytestmark = pytest.mark.unit
ASK = """
import json, sys
from sim.fleet import instructions
agreed = instructions.agree()
import numpy, torch
from fleetfl.models.devices import chosen_dtype
features = numpy._core._multiarray_umath.__cpu_features__
print(json.dumps({
    "agreed": agreed, **instructions.in_use(),
    "numpy": [n for n in numpy._core._multiarray_umath.__cpu_dispatch__ if features[n]],
    "auto": str(chosen_dtype("auto", torch.device("cpu"))),
    "mkl": __import__("os").environ.get("MKL_CBWR"),
}))
"""


def asked(**environment: str) -> dict:
    own = {name: value for name, value in os.environ.items() if name not in instructions.AVX2}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**own, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_process_of_its_own_uses_what_all_have():
    if not instructions._has_avx2():
        assert not asked()["agreed"]
        return
    found = asked()
    assert found["agreed"]
    assert found["instructions"] == "AVX2"
    assert found["numpy"] == []
    assert found["mkl"] == "AVX2,STRICT"
    # On AVX2 bfloat16 would be many times slower, whatever the processor could do.
    assert found["auto"] == "torch.float32"


def test_what_the_environment_says_stays():
    assert asked(MKL_CBWR="COMPATIBLE")["mkl"] == "COMPATIBLE"


def test_it_is_too_late_once_they_are_imported():
    before = dict(os.environ)
    assert not instructions.agree()
    assert dict(os.environ) == before


def test_a_processor_without_avx2_is_left_alone(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t\t: fpu avx sse4_2\n")
    assert not instructions._has_avx2(cpuinfo)
    cpuinfo.write_text("flags\t\t: fpu avx avx2 sse4_2\n")
    assert instructions._has_avx2(cpuinfo)
    assert not instructions._has_avx2(tmp_path / "none")
