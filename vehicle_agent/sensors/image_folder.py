"""Labelled pictures on disk, one folder a class: ROOT/car/0001.jpg. Read as they are needed."""

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from vehicle_agent.sensors import Frames, SensorConfig, SensorError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


class Config(SensorConfig):
    kind: Literal["image_folder"] = "image_folder"
    root: Path
    """Holds one folder for each class the vehicle has seen, named as the model names it."""
    size: int = Field(default=64, ge=16, le=1024)
    """Pixels; pictures are scaled to size x size when read."""
    seed: int = Field(default=0, ge=0)
    """Of the order."""

    def build(self, classes: tuple[str, ...]) -> "ImageFolder":
        return ImageFolder(self, classes)


class ImageFolder:
    def __init__(self, config: Config, classes: tuple[str, ...]) -> None:
        self.size = config.size
        self.files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((config.root / name).glob("*"))
            if path.suffix.lower() in SUFFIXES
        ]
        if not self.files:
            raise SensorError(f"{config.root}: no pictures in folders named {', '.join(classes)}")
        self.rng = np.random.default_rng(config.seed)
        self.queue: list[int] = []

    @property
    def num_frames(self) -> int | None:
        return len(self.files)

    def read(self, count: int) -> Frames:
        images, labels, taken, damaged = [], [], [], 0
        while len(images) < count:
            if not self.queue:
                self.queue = self.rng.permutation(len(self.files)).tolist()
            path, label = self.files[self.queue.pop()]
            try:
                image = self._picture(path)
            except (OSError, UnidentifiedImageError) as broken:
                damaged += 1
                if damaged >= len(self.files):
                    raise SensorError(
                        f"no readable picture; the last: {path}: {broken}"
                    ) from broken
                continue
            images.append(image)
            labels.append(label)
            taken.append(path.stat().st_mtime)
        return Frames(np.stack(images), np.array(labels, np.int64), min(taken), max(taken))

    def skip(self, count: int) -> None:
        while count > 0:
            if not self.queue:
                self.queue = self.rng.permutation(len(self.files)).tolist()
            passed = min(count, len(self.queue))
            del self.queue[-passed:]
            count -= passed

    def _picture(self, path: Path) -> np.ndarray:
        with Image.open(path) as picture:
            # draft() lets the JPEG decoder skip the detail that scaling would throw away.
            picture.draft("RGB", (self.size, self.size))
            small = picture.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(small)
