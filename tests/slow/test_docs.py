"""The README's commands do what it says: each is run as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
DEMO = next(command for command in COMMANDS if command.startswith("fleetfl demo --set"))
"""Run by test_fleet.py, which kills a part or two of it meanwhile."""


def starting(folder: Path) -> dict[str, Any]:
    """Keywords to start a command of the README with, as a user would in a folder with `configs`."""
    (folder / "configs").symlink_to(ROOT / "configs")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"cwd": folder, "env": {**os.environ, "PATH": path}}


def test_the_first_block_is_the_two_commands_that_do_everything():
    """.ci/run runs `make test`, of which this is a part; DEMO has other settings."""
    assert COMMANDS[:2] == ["make demo", "make test"]
    assert re.search(
        r"^demo: setup\n\t\$\(BIN\)/fleetfl demo$", (ROOT / "Makefile").read_text(), re.M
    )


@pytest.mark.parametrize("command", [each for each in COMMANDS[2:] if each != DEMO])
def test_command(command, tmp_path):
    done = subprocess.run(
        command,
        shell=True,
        **starting(tmp_path),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_local_link_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
