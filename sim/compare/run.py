"""The comparison: tune every contestant on the same budget, then run what was chosen on seeds of its own.

A cell is one (scenario, contestant, values, seed): a process, and a line of RUNS/FLEET/compare.jsonl.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleetfl.config import read_with, validate
from fleetfl.config.usage import Usage
from sim.compare.config import CandidateConfig, CompareConfig, Scenario
from sim.compare.curve import Curve
from sim.compare.results import Result
from sim.datasets import checked
from sim.processes.sweep import Line, key_of, measured
from sim.settings import SceneConfig

USAGE = Usage(
    "fleetfl sim compare",
    ("fleet", "seed", "model", "compare", "sim.runs", "sim.seed", "sim.dataset", "sim.weathers"),
    {
        "model.adapter": "the fleets of a comparison train a head of `rank` of their own",
        "num_partitions": "no message is sent",
        "server": "each of compare.candidates has an aggregator and an optimizer of its own",
        "sim": "each of compare.scenarios says what its fleet is like",
        "sim.dataset.alpha": "each of compare.scenarios has its own",
        "sim.dataset.partition": "each of compare.scenarios has its own `alpha`",
        "transport": "no message is sent",
        "vehicle": "each of compare.scenarios says how its vehicles train",
    },
    belongs_to_others=("bench", "chaos"),
)


@dataclass(frozen=True)
class Trial:
    """Crosses to another process."""

    tree: dict[str, Any]
    source: str
    folder: Path
    scenario: Scenario
    candidate: CandidateConfig
    choice: dict[str, Any]
    seed: int

    @property
    def key(self) -> str:
        """Equal for cells that would come out equal, whatever a contestant is called."""
        shared = {part: self.tree.get(part) for part in ("seed", "model", "sim")}
        candidate = self.candidate.candidate(self.choice).model_dump(mode="json")
        return key_of(shared, self.scenario.fleet.model_dump(mode="json"), candidate, self.seed)


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
    USAGE.require(tree, str(path), overrides)
    tree.setdefault("transport", {"kind": "memory"})
    config = validate(tree, "compare", CompareConfig, str(path))
    sim = validate(tree, "sim", SceneConfig, str(path))
    for candidate in config.candidates:
        for choice in candidate.choices():
            candidate.candidate(choice)  # what is wrong shows now, not after hours
    checked(sim.dataset, sim.model.classes, str(path))
    folder = (sim.runs / config.fleet).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    yield Standing("features", 0, 1, config, folder)
    for scenario in config.scenarios:
        scenario.fleet.prepare(sim, folder)

    def cells(choices: dict[tuple[str, str], list[dict[str, Any]]], seeds: Sequence[int]):
        return [
            Trial(tree, str(path), folder, scenario, candidate, choice, seed)
            for seed in seeds
            for scenario in config.scenarios
            for candidate in config.candidates
            for choice in choices.get((scenario.name, candidate.name), [])
        ]

    log = folder / "compare.jsonl"
    tuned = {
        (scenario.name, candidate.name): candidate.choices()
        for scenario in config.scenarios
        for candidate in config.candidates
        if candidate.grid
    }
    tuning = cells(tuned, config.tuning_seeds)
    lines: dict[str, Line] = {}
    for lines in _measured(log, tuning, workers):
        yield Standing("tuning", len(lines), _count(tuning), config, folder)
    chosen = chosen_values(config, [(trial, lines[trial.key]) for trial in tuning])
    final = cells({pair: [choice] for pair, choice in chosen.items()}, config.seeds)
    for lines in _measured(log, final, workers):
        done = [(trial, lines[trial.key]) for trial in final if trial.key in lines]
        results = tuple(_results(config, chosen, done))
        yield Standing("comparing", len(lines), _count(final), config, folder, results)


def _count(cells: Sequence[Trial]) -> int:
    """Two contestants may come to the same cell."""
    return len({trial.key for trial in cells})


def _measured(log: Path, cells: list[Trial], workers: int | None) -> Iterator[dict[str, Line]]:
    return measured(log, {trial.key: trial for trial in cells}, _measure, workers=workers)


def _measure(trial: Trial) -> Line:
    sim = validate(trial.tree, "sim", SceneConfig, trial.source)
    candidate = trial.candidate.candidate(trial.choice)
    curve = trial.scenario.fleet.curve(sim, candidate, trial.folder, seed=trial.seed)
    about = {"scenario": trial.scenario.name, "candidate": trial.candidate.name}
    return {**about, "choice": trial.choice, "seed": trial.seed, **curve.to_line()}


def chosen_values(
    config: CompareConfig, tried: Sequence[tuple[Trial, Line]]
) -> dict[tuple[str, str], dict[str, Any]]:
    """By (scenario, contestant): the values with the least mean time to the target; of those that are there
    at the same moment, the one that ends highest.

    A run that does not get there counts as if it did so at its end plus what it fell short, so that the
    nearest one wins where none arrives.
    """
    chosen = {
        (scenario.name, candidate.name): {}
        for scenario in config.scenarios
        for candidate in config.candidates
    }
    for scenario in config.scenarios:
        curves: dict[tuple[str, str], list[Curve]] = {}
        choices: dict[tuple[str, str], dict[str, Any]] = {}
        for trial, line in tried:
            if trial.scenario == scenario:
                name = (trial.candidate.name, key_of(trial.choice))
                choices[name] = trial.choice
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
        for candidate in config.candidates:
            mine = {name: cost for name, cost in costs.items() if name[0] == candidate.name}
            if mine:
                best = min(mine, key=lambda name: mine[name])
                chosen[scenario.name, candidate.name] = choices[best]
    return chosen


def _seconds_or_more(curve: Curve, target: float) -> float:
    reached = curve.seconds_to(target)
    if reached is not None:
        return reached
    return curve.seconds[-1] * (1.0 + target - max(curve.accuracy))


def _results(
    config: CompareConfig,
    chosen: dict[tuple[str, str], dict[str, Any]],
    done: Sequence[tuple[Trial, Line]],
) -> Iterator[Result]:
    for scenario in config.scenarios:
        mine = [
            (trial, Curve.from_line(line)) for trial, line in done if trial.scenario == scenario
        ]
        by_name = {
            candidate.name: {
                trial.seed: curve for trial, curve in mine if trial.candidate == candidate
            }
            for candidate in config.candidates
        }
        full = {name: curves for name, curves in by_name.items() if len(curves) > 1}
        best = max(
            (float(np.mean([c.final for c in curves.values()])) for curves in full.values()),
            default=0.0,
        )
        for name, curves in full.items():
            yield Result.of(
                scenario=scenario.name,
                candidate=name,
                choice=chosen[scenario.name, name],
                curves=curves,
                against=full.get(config.against, {}),
                target=config.target * best,
            )
