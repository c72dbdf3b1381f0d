"""Reads arrays from .npz and .npy files that anyone may have written; all failures are one error."""

import os
import stat
import zipfile
from pathlib import Path

import numpy as np

from fleetfl import FleetflError


class ArchiveError(FleetflError, ValueError):
    """A file without the arrays it should hold; names it and what was expected."""


class ArchiveMissing(ArchiveError):
    """An archive that does not exist."""


def arrays_from(path: Path, *names: str) -> list[np.ndarray]:
    """The named arrays of an .npz. Raises ArchiveError; nothing in the file is ever run."""
    _require_plain(path)
    try:
        with zipfile.ZipFile(path) as members:
            listed = {member.filename.removesuffix(".npy"): member for member in members.infolist()}
        for name in names:
            if name not in listed:
                inside = ", ".join(sorted(listed)[:8]) or "nothing"
                expected = " and ".join(map(repr, names))
                raise ArchiveError(f"{path}: no array {name!r}, expected {expected}; has {inside}")
        size = sum(listed[name].file_size for name in names)
        if size > memory_bytes() // 2:
            raise ArchiveError(f"{path}: {size} bytes unpacked, over half of this machine's memory")
        with np.load(path, allow_pickle=False) as archive:
            return [_plain(archive[name], path, name) for name in names]
    except ArchiveError:
        raise
    except Exception as broken:  # zipfile and NumPy raise a dozen kinds on hostile files
        raise ArchiveError(f"{path} cannot be read as .npz: {_said(broken)}") from broken


def array_from(path: Path) -> np.ndarray:
    """The array of an .npy. Raises ArchiveError."""
    _require_plain(path)
    try:
        return _plain(np.load(path, allow_pickle=False), path, "its array")
    except ArchiveError:
        raise
    except Exception as broken:
        raise ArchiveError(f"{path} cannot be read as .npy: {_said(broken)}") from broken


def memory_bytes() -> int:
    """Size of this machine's memory, bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _require_plain(path: Path) -> None:
    """Raises ArchiveError unless it is a plain file: opening a pipe would wait for a writer."""
    try:
        is_plain = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError as missing:
        raise ArchiveMissing(f"{path} is missing") from missing
    except (OSError, ValueError) as failed:
        raise ArchiveError(f"{path} cannot be read: {_said(failed)}") from failed
    if not is_plain:
        raise ArchiveError(f"{path} cannot be read: it is no plain file")


def _plain(array: object, path: Path, name: str) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.hasobject or array.dtype.fields:
        raise ArchiveError(f"{path}: {name} is {type(array).__name__}, expected numbers or texts")
    return array


def _said(error: BaseException) -> str:
    return str(error)[:200] or type(error).__name__
