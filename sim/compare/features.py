"""What the frozen backbone sees, computed once: features of the factory's, fleet's and held-out frames."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sim import world
from sim.datasets import DatasetConfig
from sim.partitions._label_skew import dirichlet_rows
from sim.processes.sweep import key_of
from sim.settings import SceneConfig


@dataclass(frozen=True)
class Part:
    features: np.ndarray
    """float32 [N, F], every feature of the factory's frames with mean 0 and deviation 1/4."""
    labels: np.ndarray
    """int64 [N]."""
    condition: np.ndarray
    """int64 [N]: number of the weather a frame was taken in."""


@dataclass(frozen=True)
class Features:
    key: str
    """Of the settings that they follow from."""
    factory: Part
    fleet: Part
    held_out: Part

    def hands(self, num_vehicles: int, alpha: float, *, seed: int) -> list[np.ndarray]:
        """Rows of `fleet` for each vehicle, int64: vehicle v meets weather v mod the number of weathers."""
        conditions = int(self.fleet.condition.max()) + 1
        dealt = []
        for number in range(conditions):
            rows = np.flatnonzero(self.fleet.condition == number)
            count = len(range(number, num_vehicles, conditions))
            parts = dirichlet_rows(
                self.fleet.labels[rows], count, alpha, seed=1000 * seed + number, least=4
            )
            dealt.append([rows[part] for part in parts])
        return [dealt[v % conditions][v // conditions] for v in range(num_vehicles)]


def features_of(sim: SceneConfig, folder: Path) -> Features:
    """From the file in `folder`, made if it is not there: some minutes."""
    settings = (sim.model.model_dump(mode="json"), sim.dataset.model_dump(mode="json"), sim.seed)
    key = key_of(settings, [w.model_dump() for w in sim.weathers])
    path = folder / f"features_{key}.npz"
    if not path.exists():
        found = _computed(sim, sim.dataset)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **found)  # pyright: ignore[reportArgumentType]
        partial.replace(path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    mean, spread = arrays["factory"].mean(0), 4 * arrays["factory"].std(0)
    parts = [
        Part(
            ((arrays[name] - mean) / spread).astype(np.float32),
            arrays[f"{name}_labels"],
            arrays[f"{name}_condition"],
        )
        for name in ("factory", "fleet", "held_out")
    ]
    return Features(key, *parts)


def _computed(sim: SceneConfig, dataset: DatasetConfig) -> dict[str, np.ndarray]:
    model = sim.model.build(seed=sim.seed)
    arrays: dict[str, np.ndarray] = {}
    frames = {
        "factory": dataset.initial_frames(seed=sim.seed),
        "fleet": dataset.fleet_frames(seed=sim.seed),
        "held_out": dataset.test_frames(seed=sim.seed),
    }
    for name, (images, labels) in frames.items():
        turn = np.arange(len(images)) % len(sim.weathers)
        seen = images.copy()
        if name != "factory":
            for number, weather in enumerate(sim.weathers):
                mine = turn == number
                seen[mine] = world.under(
                    images[mine], weather.condition, weather.severity, seed=sim.seed + number
                )
        with torch.no_grad():
            chunks = [
                model.features(torch.from_numpy(seen[i : i + 250])).float().numpy()
                for i in range(0, len(seen), 250)
            ]
        arrays[name] = np.concatenate(chunks)
        arrays[f"{name}_labels"] = labels.astype(np.int64)
        arrays[f"{name}_condition"] = turn
    return arrays
