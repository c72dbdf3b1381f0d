"""Makes a virtual environment what `requirements.lock` says, and tells where one differs from it.

The lock is one file for every supported Python and platform: its lines carry markers, its versions hashes.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK, PROJECT = ROOT / "requirements.lock", ROOT / "pyproject.toml"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PINNED = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?: *; *(?P<marker>[^\\]+))?"
)
SAME, DIFFERENT, BROKEN = range(3)
"""Exit statuses of `differs`: Python itself ends with 1 and prints nothing where it cannot start."""

Differences = dict[str, tuple[str | None, str | None]]
"""Name -> (version in the lock, version installed); None where there is none."""


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(lock: str) -> list[tuple[str, str, str]]:
    """(name, version, marker or "") of each requirement of a lock's text."""
    found = filter(None, map(PINNED.match, lock.splitlines()))
    return [(normalized(m["name"]), m["version"], (m["marker"] or "").strip()) for m in found]


def for_this_python(lock: str) -> dict[str, str]:
    """Name -> version of what the lock wants installed in the environment that runs this."""
    from pip._vendor.packaging.markers import Marker  # every environment has pip, also a broken one

    return {
        name: version
        for name, version, marker in pinned(lock)
        if not marker or Marker(marker).evaluate()
    }


def installed() -> dict[str, str]:
    """Name -> version of all that is installed in the environment that runs this."""
    from importlib.metadata import distributions

    return {
        normalized(name): each.version
        for each in distributions()
        if (name := each.metadata["Name"]) is not None
    }


def differences(wanted: dict[str, str], found: dict[str, str], own: str = "fleetfl") -> Differences:
    """Whatever has another version, is missing, or is installed and not in the lock, but for `own`."""
    return {
        name: (wanted.get(name), found.get(name))
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name) and name != own
    }


def described(differs: Differences) -> str:
    return "\n".join(
        f"  {name}: {f'{wanted} in' if wanted else 'not in'} the lock, {found or 'not'} installed"
        for name, (wanted, found) in differs.items()
    )


def check(python: Path) -> tuple[int, Differences]:
    """Exit status and findings of `differs` in that environment; it may be unable to run at all."""
    argv = [str(python), str(Path(__file__)), "differs", "--json"]
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
    except OSError:
        return BROKEN, {}
    if done.returncode not in (SAME, DIFFERENT) or not done.stdout:
        return BROKEN, {}
    return done.returncode, json.loads(done.stdout)


def install(venv: Path) -> None:
    """Make `venv` what the lock says. One that was never finished, or cannot run, is built anew."""
    ready, python = venv / ".ready", venv / "bin" / "python"
    status, differs = check(python) if ready.exists() else (BROKEN, {})
    if status == SAME and ready.stat().st_mtime >= max(f.stat().st_mtime for f in (LOCK, PROJECT)):
        return
    ready.unlink(missing_ok=True)
    if status == BROKEN:
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    print(f"installing torch, Ray and the rest into {venv.name}: a few minutes", flush=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    quiet = ["--quiet", "--no-input"]
    surplus = [name for name, (wanted, _) in differs.items() if wanted is None]
    if surplus:
        subprocess.run([*pip, "uninstall", *quiet, "--yes", *surplus], check=True)
    # The lock is complete: nothing is resolved, nothing is built, and no file without its hash is taken.
    exact = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "install", *quiet, *exact, "--requirement", str(LOCK)], check=True)
    ours = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    still = {**os.environ, "PYTHONWARNINGS": "ignore"}  # setuptools warns of every editable install
    subprocess.run([*pip, "install", *quiet, *ours], check=True, env=still)
    agreed = subprocess.run([*pip, "check"], check=False, capture_output=True, text=True)
    if agreed.returncode:
        sys.exit(
            f"requirements.lock is older than pyproject.toml, `make lock` renews it:\n{agreed.stdout}"
        )
    status, differs = check(python)
    if status != SAME:
        sys.exit(f"{venv} is not what the lock says:\n{described(differs)}")
    ready.touch()


def changed(before: str, after: str) -> list[str]:
    """One line for each package whose versions two locks differ in."""
    old, new = _versions(before), _versions(after)
    return [
        f"{name}: {old.get(name, 'none')} -> {new.get(name, 'none')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _versions(lock: str) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for name, version, _ in pinned(lock):
        found.setdefault(name, []).append(version)
    return {name: ", ".join(versions) for name, versions in found.items()}


def renew(venv: Path) -> None:
    """Resolve the ranges of pyproject.toml again, by metadata alone, and print what changed.

    uv resolves for all Pythons and platforms at once, which pip cannot; it installs nothing. Then each
    Python has to find a wheel of everything.
    """
    if not (venv / "bin" / "uv").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "uv>=0.9"], check=True)
    before = LOCK.read_text() if LOCK.exists() else ""
    uv = [str(venv / "bin" / "uv"), "pip", "compile", "pyproject.toml", "--quiet", "--upgrade"]
    what = ["--extra", "dev", "--group", "build", "--universal", "--python-version", PYTHONS[0]]
    how = ["--generate-hashes", "--no-annotate", "--custom-compile-command", "make lock"]
    subprocess.run([*uv, *what, *how, "--output-file", LOCK.name], check=True, cwd=ROOT)
    alone = [uv[0], "pip", "compile", LOCK.name, "--quiet", "--no-deps", "--only-binary", ":all:"]
    for version in PYTHONS:
        machine = ["--python-version", version, "--python-platform", "x86_64-manylinux_2_28"]
        subprocess.run([*alone, *machine], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    lines = changed(before, LOCK.read_text())
    print("\n".join(lines) or "nothing changed: every version is the newest that the ranges admit")


def compare(*, as_json: bool) -> int:
    """Print where this environment differs from the lock; gives the exit status."""
    differs = differences(for_this_python(LOCK.read_text()), installed())
    print(json.dumps(differs) if as_json else described(differs) or "  none")
    return DIFFERENT if differs else SAME


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["install", "renew", "differs"])
    parser.add_argument("venv", nargs="?", type=Path, help="the folder of the environment")
    parser.add_argument("--json", action="store_true", help="of what differs in this environment")
    asked = parser.parse_args()
    if asked.command == "differs":
        sys.exit(compare(as_json=asked.json))
    try:
        {"install": install, "renew": renew}[asked.command](asked.venv.absolute())
    except subprocess.CalledProcessError as error:
        words = " ".join(str(word) for word in error.cmd if not str(word).startswith("--quiet"))
        sys.exit(f"{asked.command}: status {error.returncode} (below 0: a signal) of {words}")


if __name__ == "__main__":
    main()
