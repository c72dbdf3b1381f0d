"""The commands of README and docs do what they say: each is run as it stands.

Blocks marked `bash` are run; those marked `console`, with a `$`, need hardware, hours or a fleet of yours.
"""

import ast
import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.ports import free_ports

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def bash_blocks(text: str) -> list[str]:
    return re.findall(r"```bash\n(.*?)```", text, re.DOTALL)


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HISTORY = [page for page in PAGES if page.parent.name in ("results", "decisions")]
"""Pages of record: their commands are of the commit that they name."""
BLOCKS = bash_blocks((ROOT / "README.md").read_text())
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


FIRST_HOURS = (("fleet.md", "perception.md"), ("simulation.md",))
"""Pages in docs/start; the second of two goes on where the first one ends."""


@pytest.mark.parametrize("pages", FIRST_HOURS, ids=lambda pages: pages[0])
def test_a_first_hour_does_what_it_says(pages, tmp_path):
    """All blocks of the pages in one shell, at ports that nobody else has."""
    text = "".join((ROOT / "docs" / "start" / page).read_text() for page in pages)
    blocks = [each for each in bash_blocks(text) if DEMO not in each]
    script = "set -e\n" + "".join(blocks)
    broker, endpoint, monitor = free_ports(3)
    script = script.replace("1883", str(broker)).replace("8000", str(endpoint))
    script = script.replace(
        f"{{port: {endpoint}}}", f"{{port: {endpoint}}}\n  monitor: {{port: {monitor}}}"
    )
    process = subprocess.Popen(
        ["bash", "-c", script],
        **starting(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        told, _ = process.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    assert process.returncode == 0, told + logs(tmp_path)


def logs(folder: Path) -> str:
    """The ends of what the processes of a guide have printed."""
    return "".join(f"\n{log.name}:\n{log.read_text()[-3000:]}" for log in folder.glob("*.log"))


def test_every_block_that_looks_like_a_command_is_run_or_marked():
    """A block without a language would be run by nobody, and say so to nobody."""
    for page in PAGES:
        for language, block in re.findall(
            r"^ *```(\w*)\n(.*?)^ *```", page.read_text(), re.M | re.S
        ):
            is_command = re.search(r"^\$? *(fleetfl|make|pip|python3?|curl) ", block, re.M)
            if is_command and page not in HISTORY:
                is_run = page == ROOT / "README.md" or page.parent.name == "start"
                assert language == "console" or (language == "bash" and is_run), (page, block)
                assert (language == "console") == (block.lstrip().startswith("$")), (page, block)


def test_every_local_link_leads_somewhere():
    """Files and headings; what `make docs` writes is in docs/reference."""
    dead = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\((?!http)([^)\s]+)\)", text):
            to, _, anchor = link.partition("#")
            target = (page.parent / to).resolve() if to else page
            is_written = target.is_relative_to(ROOT / "docs" / "reference")
            if not (target.exists() or is_written):
                dead.append((page.name, link))
            elif anchor and target.suffix == ".md" and not is_written:
                headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                if anchor not in {slug(each) for each in headings}:
                    dead.append((page.name, link))
    assert dead == []


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_troubleshooting_has_the_words_of_the_code():
    """What is quoted as an error is in the source, up to the values that stand in it."""
    source = " ".join(
        node.value
        for part in ("fleetfl", "actors", "vehicle_agent", "sim")
        for file in (ROOT / part).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = [
        each
        for row in re.findall(r"^\| (`[^|]*)\|", text, re.M)
        for each in re.findall("`([^`]+)`", row)
    ]
    assert len(quoted) >= 30
    of_others = ("Extra inputs are not permitted", "Not authorized", "the line")
    missing = []
    for each in quoted:
        parts = re.split(
            r"'X'|\bX\b|\bN\b|\bM\b|HOST|PORT|PATH|FOLDER|FILE|\[\.\.\.\]|\.\.\.?|'", each
        )
        parts = [part.strip(" :;,()") for part in parts]
        missing += [
            part
            for part in parts
            if len(part) > 3 and part not in source and not any(o in part for o in of_others)
        ]
    assert missing == []
