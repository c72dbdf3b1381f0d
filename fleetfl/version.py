"""Version and commit of the running code, for the record of each release."""

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
    """Commit of the source tree that holds this package, with `+` if it was changed; else `unknown`."""
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
