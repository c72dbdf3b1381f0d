"""Which code is running, for the record of what it makes."""

import subprocess
from functools import cache
from pathlib import Path

import fleetfl


@cache
def code_version() -> str:
    """The package's version and, where it is known, its commit."""
    found = commit()
    return fleetfl.__version__ if found == "unknown" else f"{fleetfl.__version__} {found}"


def commit() -> str:
    """Of the source tree this package lies in, with `+` if it was changed; else `unknown`."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
