"""What each part may load. import-linter sees import statements; this sees the running process."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("fleetfl.coordination.coordinator", "torch ray paho timm"),
        ("fleetfl.cli", "torch ray paho timm"),
        ("fleetfl.fleet_config", "torch ray timm"),
        ("actors.config", "torch ray timm"),
        ("actors.gateway", "torch ray timm"),
        ("actors.aggregator", "torch timm"),
        ("vehicle_agent.run", "ray fastapi transformers"),
    ],
)
def test_import_stays_light(module, absent):
    code = f"import sys, {module}; print([m for m in {absent.split()!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
