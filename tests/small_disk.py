"""Disks of a few megabytes, for tests of what happens when one is full, read-only or broken. Needs root."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int = 1) -> Iterator[Path]:
    """Mounted there until the context is left."""
    folder.mkdir()
    _must("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class BreakingDisk:
    """ext4, which the kernel makes read-only under its users when it finds an error."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self.image = folder, folder.with_suffix(".img")
        with self.image.open("wb") as file:
            file.truncate(megabytes * 2**20)
        _must("mkfs.ext4", "-q", self.image)
        folder.mkdir()
        self._mount()

    def _mount(self) -> None:
        _must("mount", "-o", "loop,errors=remount-ro", self.image, self.folder)

    def breaks(self) -> None:
        """From now on nothing is written."""
        device = _must("findmnt", "--noheadings", "--output", "SOURCE", self.folder)
        name = device.strip().rsplit("/", 1)[-1]
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("broken by a test")

    def is_repaired(self) -> None:
        """What whoever runs the machine does; no file of it is open."""
        _must("umount", self.folder)
        fsck = ["fsck.ext4", "-y", str(self.image)]
        repaired = subprocess.run(fsck, check=False, capture_output=True)
        assert repaired.returncode in (0, 1), repaired.stdout
        self._mount()


@contextlib.contextmanager
def breaking_disk(folder: Path, megabytes: int = 8) -> Iterator[BreakingDisk]:
    """Mounted there until the context is left."""
    disk = BreakingDisk(folder, megabytes)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _must(*argv: str | Path) -> str:
    words = [str(word) for word in argv]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(words)}: {done.stderr.strip()} (this test has to run as root)")
    return done.stdout


def fill(disk: Path) -> Path:
    """A file that leaves no byte free."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    return ballast


@contextlib.contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """While nobody has a file of it open for writing."""
    os.sync()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
