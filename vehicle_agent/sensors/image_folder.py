"""Labelled pictures on disk, one folder a class: ROOT/car/0001.jpg. Read as they are needed.

Files may come and go meanwhile, as in a dash camera's ring buffer. A damaged one is passed over, counted
once, and looked at again when it has changed.
"""

import errno
import logging
import os
import stat
import time
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from fleetfl.pictures import KINDS, Bounds, PictureError, picture, scaled
from vehicle_agent.sensors import MAX_SECOND, Frames, SensorConfig, SensorError
from vehicle_agent.sensors._folder_scan import scan, shown

log = logging.getLogger(__name__)

MAX_TRIES = 10_000
"""Files in a row without a picture in them, after which `read` gives up for now."""
MAX_UNFIT = 100_000
"""Files that are remembered as damaged; further ones are tried anew each time."""
MAX_EPOCHS_SKIPPED = 10_000
"""Of which the order is drawn again after a restart; with more, it begins anew."""
GONE = (errno.ENOENT, errno.ENOTDIR)


class Config(SensorConfig):
    kind: Literal["image_folder"] = "image_folder"
    root: Path
    """Holds one folder for each class the vehicle has seen, named as the model names it, at any depth."""
    size: int = Field(default=64, ge=16, le=1024)
    """Pixels; pictures are scaled to size x size when read."""
    seed: int = Field(default=0, ge=0)
    """Seed of the order of frames."""
    max_pixels: int = Field(default=64_000_000, ge=4096)
    """Larger pictures are passed over before they are unpacked."""
    rescan_s: float = Field(default=60.0, ge=0)
    """The folder is looked through for new files so often."""

    def build(self, classes: tuple[str, ...]) -> "ImageFolder":
        return ImageFolder(self, classes)


class ImageFolder:
    def __init__(self, config: Config, classes: tuple[str, ...]) -> None:
        self.config, self.classes = config, classes
        self.bounds = Bounds(max_pixels=config.max_pixels)
        self.rng = np.random.default_rng(config.seed)
        self.unfit: dict[bytes, tuple[tuple[int, int], str]] = {}
        """By path, as of which time and size, and why."""
        self.last_unfit = ""
        self.queue = np.zeros(0, np.int64)
        """What is left of this epoch; taken from its end."""
        self.files, self.is_stale = scan(config.root, classes), False
        self.looked_at = time.monotonic()

    @property
    def num_frames(self) -> int | None:
        return len(self.files)

    @property
    def note(self) -> str:
        """What was passed over and why; empty if nothing was."""
        counts = Counter(why for _, why in self.unfit.values()) + self.files.passed_over
        if not counts:
            return ""
        said = "frames passed over: " + ", ".join(f"{n} {why}" for why, n in counts.most_common())
        if self.files.strangers:
            said += f" (in {', '.join(self.files.strangers)}; {self._expected})"
        return said + (f"; the last: {self.last_unfit}" if self.unfit else "")

    @property
    def _expected(self) -> str:
        names = ", ".join(self.classes[:12])
        return f"classes are {names}{', ...' if len(self.classes) > 12 else ''}"

    def read(self, count: int) -> Frames:
        if self.is_stale or time.monotonic() - self.looked_at >= self.config.rescan_s:
            self._look_again()
        images: list[np.ndarray] = []
        labels, taken, tries = [], [], 0
        while len(images) < count:
            path, label = self._next()
            got = self._read(path)
            if got is None:
                tries += 1
                # The one good file of many may be the first of one epoch and the last of the next.
                if tries >= min(2 * len(self.files), MAX_TRIES):
                    self.is_stale = True
                    raise SensorError(
                        f"{shown(self._root)}: no readable picture; the last: {self.last_unfit}"
                    )
                continue
            tries = 0
            images.append(got[0])
            labels.append(label)
            taken.append(got[1])
        return Frames(np.stack(images), np.array(labels, np.int64), min(taken), max(taken))

    def skip(self, count: int) -> None:
        if not len(self.files):
            return
        epochs, rest = divmod(count, len(self.files))
        for _ in range(epochs % MAX_EPOCHS_SKIPPED):
            self.rng.permutation(len(self.files))
        if rest:
            self.queue = self.rng.permutation(len(self.files))[:-rest]

    @property
    def _root(self) -> str:
        return str(self.config.root)

    def _look_again(self) -> None:
        """New files are in, those that are gone are out; an unchanged folder keeps its order."""
        files = scan(self.config.root, self.classes)
        self.looked_at, self.is_stale = time.monotonic(), False
        if not files.lists_as(self.files):
            self.queue = np.zeros(0, np.int64)
            self.unfit = {path: why for path, why in self.unfit.items() if os.path.lexists(path)}
        self.files = files

    def _next(self) -> tuple[bytes, int]:
        """Path and label. Raises SensorError if the folder has none."""
        if not len(self.queue):
            if self.is_stale or not len(self.files):
                self._look_again()
            self.queue = self.rng.permutation(len(self.files))
        if not len(self.queue):
            root = shown(self._root)
            if not self.files.is_there:
                raise SensorError(f"the folder {root} is not there, or cannot be read")
            named = f"{root}: no pictures in folders named {', '.join(self.classes)}"
            raise SensorError(named[:200])
        number, self.queue = int(self.queue[-1]), self.queue[:-1]
        return self.files[number]

    def _read(self, path: bytes) -> tuple[np.ndarray, float] | None:
        """The picture, uint8 [size, size, 3], and when it was taken; None, noted, if that cannot be."""
        version = (0, 0)
        try:
            about = os.stat(path)
            version = about.st_mtime_ns, about.st_size
            if self.unfit.get(path, (None,))[0] == version:
                return None
            data = contents(path, self.bounds.max_bytes)
            size = self.config.size
            # Twice the size, so that there is something left to average over.
            whole = picture(data, self.bounds, fit=2 * size, kinds=(*KINDS, "BMP"))
            small = scaled(whole, size)
        except OSError as broken:
            if broken.errno in GONE:
                self.is_stale = True
            else:
                self._unfit(path, version, "unreadable", broken.strerror or str(broken))
            return None
        except Exception as damaged:  # whatever it is, the next frame may be a good one
            self._unfit(path, version, "damaged", str(damaged) or type(damaged).__name__)
            return None
        self.unfit.pop(path, None)
        return small, min(max(about.st_mtime, 0.0), MAX_SECOND)

    def _unfit(self, path: bytes, version: tuple[int, int], why: str, detail: str) -> None:
        name = shown(os.path.relpath(path, os.fsencode(self.config.root)))
        if path not in self.unfit:
            log.warning("frame %s is passed over: %s", name, detail)
        if len(self.unfit) < MAX_UNFIT or path in self.unfit:
            self.unfit[path] = (version, why)
            self.last_unfit = f"{name}: {detail}"


def contents(path: bytes, max_bytes: int) -> bytes:
    """A plain file's bytes; a pipe that has taken its place holds nobody up. Raises OSError, PictureError."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as opened:
        about = os.fstat(opened.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise PictureError("no plain file")
        if about.st_size > max_bytes:
            raise PictureError(f"{about.st_size} bytes, expected at most {max_bytes}")
        return opened.read(max_bytes)
