"""Backs up a server's state folder while the server runs, and restores it. Knows files and no server.

    manifest.json     what is in it: each file's SHA-256 and size, and how far the server was
    state/...         the files, as they are to lie in a state folder

A backup is a folder, or one tar file of it. It holds the server's private key: guard it.

It is consistent by its order: first the checkpoints, then all else, the journal last. The journal has every
row behind the checkpoints, and all that the registry has by then follows from those rows.
"""

import contextlib
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from fleetfl import FleetflError
from fleetfl.storage.atomic_write import sync
from fleetfl.storage.checkpoints import CheckpointError, Checkpoints
from fleetfl.storage.journal import Journal, JournalError, path_in
from fleetfl.version import code_version

FORMAT = 1
MANIFEST, STATE, RESTORED = "manifest.json", "state", "restored"
TRIES = 5
"""Number of attempts at a copy while the server trims rows behind the checkpoints already copied."""
LEFT_OUT = ("server.lock", "before-", "events.jsonl", "restored")
"""Prefixes of names in a state folder that are not copied: locks, files set aside, and the event log."""

Tell = Callable[[str], None]


class BackupError(FleetflError, RuntimeError):
    """A backup that cannot be made or put back; names the file and what is wrong."""


class FileAbout(msgspec.Struct, frozen=True):
    """Digest and size of one file in a backup."""

    sha256: str
    """SHA-256 of the content, in hexadecimal."""
    num_bytes: int
    """Size, bytes."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of a backup, and how far its server was."""

    format: int
    """Format of the backup, FORMAT."""
    made: float
    """Time, UTC seconds, at which it was begun: an update that had its receipt by then is in it."""
    code: str
    """Version of the code that made it."""
    settings: str
    """Fingerprint of the settings that the newest checkpoint was made with; empty if it does not say."""
    generation: str = msgspec.field(name="lineage")  # its name on disk since the first version
    """Name of the generation of versions that the server counts in."""
    version: int
    """Version of the newest release that the newest checkpoint knows."""
    counted_row: int
    """Last row of the journal that the newest checkpoint has counted."""
    newest_row: int
    """Last row of the journal."""
    files: dict[str, FileAbout]
    """Digest and size of each file, by its path in the state folder."""

    @property
    def num_bytes(self) -> int:
        """Size of all files together, bytes."""
        return sum(about.num_bytes for about in self.files.values())


def make(state: Path, into: Path, *, tell: Tell = lambda line: None) -> Manifest:
    """Back the server's `state` up `into` a folder, or a file if that ends in .tar, .tar.gz or .tgz.

    The server may run. Raises BackupError; there is then nothing at `into`.
    """
    if not path_in(state).is_file() or not (state / "key.pem").is_file():
        raise BackupError(
            f"{state} is not the state folder of a server: it has no journal or no key.pem"
        )
    if into.exists() and not (into.is_dir() and not any(into.iterdir())):
        raise BackupError(f"{into} is there already; a backup goes to a new folder or file")
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        with _scratch_beside(into) as scratch:
            manifest = _filled(state, scratch, tell)
            if _is_file(into):
                tell(f"packing {into.name}")
                _pack(scratch, into)
            else:
                scratch.replace(into)
            sync(into.parent)
    except (OSError, tarfile.TarError) as failed:
        raise BackupError(f"backup {into}: {failed}") from failed
    return manifest


def restore(backup: Path, state: Path, *, tell: Tell = lambda line: None) -> Manifest:
    """Restore a backup as `state`, a folder that is empty or not there. Every file is checked first.

    A server that is started there begins a new generation. Raises BackupError; `state` is then as it was.
    """
    if state.exists() and (not state.is_dir() or any(state.iterdir())):
        raise BackupError(
            f"{state} is not empty: a server may run there, or its state would be lost. Name another "
            "folder, or move that one away"
        )
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        with _scratch_beside(state) as scratch:
            (scratch / STATE).mkdir(mode=0o700)
            manifest = _unpacked(backup, scratch, tell)
            about = {"made": manifest.made, "restored": round(time.time(), 3)}
            (scratch / STATE / RESTORED).write_bytes(msgspec.json.encode(about))
            _sync_all(scratch / STATE)
            (scratch / STATE).replace(state)
            sync(state.parent)
    except (OSError, tarfile.TarError, EOFError, ValueError) as failed:
        if isinstance(failed, FleetflError):
            raise
        raise BackupError(f"backup {backup}: {failed}") from failed
    return manifest


def _filled(state: Path, scratch: Path, tell: Tell) -> Manifest:
    began, copy = time.time(), scratch / STATE
    copy.mkdir(mode=0o700)
    for _ in range(TRIES):
        tell("checkpoints")
        row, newest = _copy_checkpoints(state, copy)
        tell("releases, keys and all else")
        _copy_others(state, copy)
        tell("the journal")
        newest_row = _copy_journal(state, copy, row)
        if newest_row is not None:
            break
    else:
        raise BackupError(
            f"rows are trimmed faster than {state} can be copied: raise server.journal.keep_s"
        )
    published = newest["coordinator"]["published"]
    manifest = Manifest(
        format=FORMAT,
        made=round(began, 3),
        code=code_version(),
        settings=newest.get("settings", ""),
        generation=published["lineage"],
        version=published["version"],
        counted_row=row,
        newest_row=newest_row,
        files={str(path.relative_to(copy)): _about(path) for path in _files(copy)},
    )
    (scratch / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    _sync_all(scratch)
    return manifest


def _copy_checkpoints(state: Path, copy: Path) -> tuple[int, Any]:
    """Copy the checkpoints; gives row and state of the newest one that was copied."""
    into = copy / "checkpoints"
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    for path in sorted((state / "checkpoints").glob("*.checkpoint"), reverse=True):
        with contextlib.suppress(FileNotFoundError):  # overtaken meanwhile
            shutil.copyfile(path, into / path.name)
    try:
        found = Checkpoints(into).newest()
    except CheckpointError as damaged:
        raise BackupError(str(damaged)) from damaged
    if found is None:
        raise BackupError(
            f"{state} has no checkpoint: no server has ever run there to its end of starting"
        )
    return found


def _copy_others(state: Path, copy: Path) -> None:
    """Copy all but checkpoints and journal; files that an earlier attempt copied are overwritten."""
    for path in _files(state):
        relative = path.relative_to(state)
        name = relative.parts[0]
        if (
            name.startswith(LEFT_OUT)
            or name in ("checkpoints", "journal")
            or path.name.startswith(".")
        ):
            continue
        into = copy / relative
        into.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            shutil.copy2(path, into)


def _copy_journal(state: Path, copy: Path, row: int) -> int | None:
    """Copy the journal; gives the number of its last row, or None if rows behind `row` were trimmed."""
    into = path_in(copy)
    into.parent.mkdir(exist_ok=True)
    into.unlink(missing_ok=True)
    try:
        with contextlib.closing(Journal(path_in(state))) as journal:
            journal.copy_to(into)
        with contextlib.closing(Journal(into)) as copied:
            following = copied.rows(row, 1)
            if following and copied.missing(row, following[0].row) is not None:
                return None
            newest = copied.newest_row()
    except JournalError as failed:
        raise BackupError(f"{failed} (start the server, which repairs its journal)") from failed
    for path in into.parent.iterdir():
        if path != into:
            path.unlink()
    return newest


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _about(path: Path) -> FileAbout:
    digest = sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return FileAbout(digest.hexdigest(), path.stat().st_size)


def _sync_all(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir() or path.is_file():
            sync(path)


def _is_file(into: Path) -> bool:
    return into.name.endswith((".tar", ".tar.gz", ".tgz"))


@contextlib.contextmanager
def _scratch_beside(path: Path) -> Iterator[Path]:
    """Context with a private folder on the same disk as `path`; it is removed unless it was renamed."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _pack(scratch: Path, into: Path) -> None:
    partial = into.with_name(f".{into.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    mode = "w" if into.name.endswith(".tar") else "w:gz"
    try:
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode=mode) as tar:
                for name in (MANIFEST, STATE):
                    tar.add(scratch / name, arcname=name)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(into)
    finally:
        partial.unlink(missing_ok=True)


def _unpacked(backup: Path, scratch: Path, tell: Tell) -> Manifest:
    """Copy or unpack the backup into `scratch`, and check each file against the manifest."""
    if backup.is_dir():
        tell("copying")
        _copy_listed(backup, scratch)
    elif backup.is_file():
        tell("unpacking")
        _extract_listed(backup, scratch)
    else:
        raise BackupError(f"{backup} is not there")
    manifest = _manifest(scratch / MANIFEST, backup)
    tell(f"checking {len(manifest.files)} files")
    for name, about in manifest.files.items():
        path = scratch / STATE / name
        if not path.is_file():
            raise BackupError(f"backup {backup} lacks {name}")
        if _about(path) != about:
            raise BackupError(f"backup {backup} is DAMAGED: {name} is not as it was written")
        path.chmod(0o600)
    for path in list(_files(scratch / STATE)):
        if str(path.relative_to(scratch / STATE)) not in manifest.files:
            raise BackupError(
                f"backup {backup} has {path.name}, of which its manifest knows nothing"
            )
    return manifest


def _copy_listed(backup: Path, scratch: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # said below
        shutil.copyfile(backup / MANIFEST, scratch / MANIFEST)
    for name in _manifest(scratch / MANIFEST, backup).files:
        into = scratch / STATE / name
        into.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # said by name when all is checked
            shutil.copyfile(backup / STATE / name, into)


def _extract_listed(backup: Path, scratch: Path) -> None:
    """Unpack the regular files of a tar file into `scratch`, and none outside of it."""
    try:
        archive = tarfile.open(backup)  # noqa: SIM115
    except tarfile.ReadError as odd:  # it says so for each way of packing, a line each
        raise BackupError(f"{backup} is no backup of a server: no tar archive") from odd
    with archive as tar:
        for member in tar:
            if not member.isfile() or not _is_inside(member.name):
                continue
            content = tar.extractfile(member)
            assert content is not None, "a regular file has a content"
            into = scratch / member.name
            into.parent.mkdir(parents=True, exist_ok=True)
            with into.open("wb") as file:
                shutil.copyfileobj(content, file)


def _manifest(path: Path, backup: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError as missing:
        raise BackupError(f"{backup} is no backup of a server: it has no {MANIFEST}") from missing
    except Exception as odd:
        raise BackupError(f"backup {backup}: {MANIFEST} cannot be read: {odd}") from odd
    if manifest.format != FORMAT:
        raise BackupError(f"backup {backup} has format {manifest.format}, expected {FORMAT}")
    outside = [name for name in manifest.files if not _is_inside(name)]
    if outside:
        raise BackupError(f"backup {backup} names {outside[0]!r}, which is outside of it")
    return manifest


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
