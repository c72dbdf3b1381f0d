"""Commands that installed packages bring: entry points of the group `fleetfl.commands`.

An entry point names a Typer app, which becomes a group of commands, or a function, which becomes one command.
Its extras, as in `server = "actors.cli:server_app [server]"`, say what has to be installed for it to work.
A command whose packages are missing is not listed, and says why when it is called.
"""

import re
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version

import typer
from rich.markup import escape

GROUP = "fleetfl.commands"


def add_commands(app: typer.Typer, group: str = GROUP) -> None:
    """Add every command of the installed packages to `app`, and name in its help those that do not work here.

    A command whose module cannot be imported is left out, with a line on stderr.
    """
    lacking = []
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        try:
            command = point.load()
        except Exception as broken:  # whatever a module of somebody else's raises
            typer.echo(
                f"fleetfl {point.name} is left out: {point.value}: {broken!r:.200}", err=True
            )
            continue
        is_lacking = bool(missing_packages(point))
        if is_lacking:
            lacking.append(point)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=point.name, hidden=is_lacking)
        else:
            app.command(point.name, hidden=is_lacking)(command)
    if lacking:
        names = ", ".join(point.name for point in lacking)
        extras = ",".join(sorted({extra for point in lacking for extra in point.extras}))
        how = f'pip install "fleetfl[{extras}]"'
        app.info.epilog = escape(f"Not installed here: {names}. To have them: {how}")


def missing_packages(point: EntryPoint) -> list[str]:
    """Distributions that the entry point's extras ask for and that are not installed."""
    if point.dist is None:
        return []
    own = _normalized(point.dist.name)
    wanted = _required(point.dist.requires or [], [*point.extras], own)
    return sorted(name for name in wanted if not _is_installed(name))


def _required(requires: list[str], extras: list[str], own: str) -> set[str]:
    """Names of the distributions that the extras ask for, those of extras of `own` itself included."""
    wanted = set()
    for extra in extras:  # grows while it is read: an extra may ask for others
        for name, more in (_parsed(line) for line in requires if _is_of(line, extra)):
            if name == own:
                extras += [each for each in more if each not in extras]
            else:
                wanted.add(name)
    return wanted


def _is_of(line: str, extra: str) -> bool:
    """Whether the requirement, such as `ray[serve]>=2.50; extra == "server"`, belongs to the extra."""
    return re.search(rf"""extra\s*==\s*["']{re.escape(extra)}["']""", line) is not None


def _parsed(line: str) -> tuple[str, list[str]]:
    """Name and extras of a requirement."""
    found = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?", line)
    assert found is not None, line
    return _normalized(found[1]), [each.strip() for each in (found[2] or "").split(",") if each]


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
