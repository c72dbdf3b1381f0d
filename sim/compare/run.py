"""The comparison: tune every contestant on the same budget, then run what was chosen on seeds of its own.

A cell is one (scenario, contestant, values, seed): a process, and a line of RUNS/FLEET/compare.jsonl.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleetfl.config import read_with, validate
from sim.compare.config import CompareConfig, Contestant, Scenario
from sim.compare.curve import Curve
from sim.compare.results import Result
from sim.datasets import checked
from sim.live.config import SimConfig
from sim.processes.sweep import Line, key_of, measured


@dataclass(frozen=True)
class Cell:
    """Crosses to another process."""

    tree: dict[str, Any]
    source: str
    folder: Path
    scenario: Scenario
    contestant: Contestant
    choice: dict[str, Any]
    seed: int

    @property
    def key(self) -> str:
        """Equal for cells that would come out equal, whatever a contestant is called."""
        shared = {part: self.tree.get(part) for part in ("seed", "model", "sim")}
        entrant = self.contestant.entrant(self.choice).model_dump(mode="json")
        return key_of(shared, self.scenario.fleet.model_dump(mode="json"), entrant, self.seed)


@dataclass(frozen=True)
class Standing:
    """How far a comparison is."""

    stage: str
    done: int
    in_all: int
    config: CompareConfig
    folder: Path
    results: tuple[Result, ...] = ()
    """Of scenarios and contestants with two runs or more; complete once all cells are done."""


def run(
    path: Path, overrides: Sequence[str] = (), *, workers: int | None = None
) -> Iterator[Standing]:
    """After every cell; the last one has all results. Raises ConfigError."""
    tree = read_with(path, overrides)
    tree.setdefault("transport", {"kind": "memory"})
    config = validate(tree, "compare", CompareConfig, str(path))
    sim = validate(tree, "sim", SimConfig, str(path))
    for contestant in config.contestants:
        for choice in contestant.choices():
            contestant.entrant(choice)  # what is wrong shows now, not after hours
    checked(sim.dataset, sim.model.classes, str(path))
    folder = (sim.runs / config.fleet).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    yield Standing("features", 0, 1, config, folder)
    for scenario in config.scenarios:
        scenario.fleet.prepare(sim, folder)

    def cells(choices: dict[tuple[str, str], list[dict[str, Any]]], seeds: Sequence[int]):
        return [
            Cell(tree, str(path), folder, scenario, contestant, choice, seed)
            for seed in seeds
            for scenario in config.scenarios
            for contestant in config.contestants
            for choice in choices.get((scenario.name, contestant.name), [])
        ]

    log = folder / "compare.jsonl"
    tuned = {
        (scenario.name, contestant.name): contestant.choices()
        for scenario in config.scenarios
        for contestant in config.contestants
        if contestant.grid
    }
    tuning = cells(tuned, config.tuning_seeds)
    lines: dict[str, Line] = {}
    for lines in _measured(log, tuning, workers):
        yield Standing("tuning", len(lines), _count(tuning), config, folder)
    chosen = chosen_values(config, [(cell, lines[cell.key]) for cell in tuning])
    final = cells({pair: [choice] for pair, choice in chosen.items()}, config.seeds)
    for lines in _measured(log, final, workers):
        done = [(cell, lines[cell.key]) for cell in final if cell.key in lines]
        results = tuple(_results(config, chosen, done))
        yield Standing("comparing", len(lines), _count(final), config, folder, results)


def _count(cells: Sequence[Cell]) -> int:
    """Two contestants may come to the same cell."""
    return len({cell.key for cell in cells})


def _measured(log: Path, cells: list[Cell], workers: int | None) -> Iterator[dict[str, Line]]:
    return measured(log, {cell.key: cell for cell in cells}, _measure, workers=workers)


def _measure(cell: Cell) -> Line:
    sim = validate(cell.tree, "sim", SimConfig, cell.source)
    entrant = cell.contestant.entrant(cell.choice)
    curve = cell.scenario.fleet.curve(sim, entrant, cell.folder, seed=cell.seed)
    about = {"scenario": cell.scenario.name, "contestant": cell.contestant.name}
    return {**about, "choice": cell.choice, "seed": cell.seed, **curve.to_line()}


def chosen_values(
    config: CompareConfig, tried: Sequence[tuple[Cell, Line]]
) -> dict[tuple[str, str], dict[str, Any]]:
    """By (scenario, contestant): the values with the least mean time to the target; of those that are there
    at the same moment, the one that ends highest.

    A run that does not get there counts as if it did so at its end plus what it fell short, so that the
    nearest one wins where none arrives.
    """
    chosen = {
        (scenario.name, contestant.name): {}
        for scenario in config.scenarios
        for contestant in config.contestants
    }
    for scenario in config.scenarios:
        curves: dict[tuple[str, str], list[Curve]] = {}
        choices: dict[tuple[str, str], dict[str, Any]] = {}
        for cell, line in tried:
            if cell.scenario == scenario:
                name = (cell.contestant.name, key_of(cell.choice))
                choices[name] = cell.choice
                curves.setdefault(name, []).append(Curve.from_line(line))
        target = config.target * max(
            (float(np.mean([c.final for c in some])) for some in curves.values()), default=0.0
        )
        costs = {
            name: (
                float(np.mean([_seconds_or_more(curve, target) for curve in some])),
                -float(np.mean([curve.final for curve in some])),
            )
            for name, some in curves.items()
        }
        for contestant in config.contestants:
            mine = {name: cost for name, cost in costs.items() if name[0] == contestant.name}
            if mine:
                best = min(mine, key=lambda name: mine[name])
                chosen[scenario.name, contestant.name] = choices[best]
    return chosen


def _seconds_or_more(curve: Curve, target: float) -> float:
    reached = curve.seconds_to(target)
    if reached is not None:
        return reached
    return curve.seconds[-1] * (1.0 + target - max(curve.accuracy))


def _results(
    config: CompareConfig,
    chosen: dict[tuple[str, str], dict[str, Any]],
    done: Sequence[tuple[Cell, Line]],
) -> Iterator[Result]:
    for scenario in config.scenarios:
        mine = [(cell, Curve.from_line(line)) for cell, line in done if cell.scenario == scenario]
        by_name = {
            contestant.name: {
                cell.seed: curve for cell, curve in mine if cell.contestant == contestant
            }
            for contestant in config.contestants
        }
        full = {name: curves for name, curves in by_name.items() if len(curves) > 1}
        best = max(
            (float(np.mean([c.final for c in curves.values()])) for curves in full.values()),
            default=0.0,
        )
        for name, curves in full.items():
            yield Result.of(
                scenario=scenario.name,
                contestant=name,
                choice=chosen[scenario.name, name],
                curves=curves,
                against=full.get(config.against, {}),
                target=config.target * best,
            )
