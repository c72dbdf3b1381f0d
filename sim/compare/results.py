"""What a contestant came to in one scenario: each figure a mean over seeds with its 95 % interval."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from sim.compare.curve import Curve
from sim.report.intervals import mean_ci95

Figure = tuple[float, float]
"""Mean, and half the width of its 95 % interval."""


@dataclass(frozen=True)
class Result:
    """Accuracies and gaps are fractions. None where no seed, or not every seed, gives the figure."""

    scenario: str
    candidate: str
    choice: dict[str, Any]
    """The tuned values."""
    target: float
    seeds: int
    reached: int
    """Seeds on which the target was reached; the next three are None unless all were."""
    seconds: Figure | None
    updates: Figure | None
    """Accepted until then."""
    sooner: Figure | None
    """How many times sooner than the contestant of `against`, on the same seeds: the mean of their logarithms
    taken back, and the factor up or down that its interval is wide."""
    is_sooner_at_least: bool
    """On a seed `against` did not reach the target, and counts with its whole run: `sooner` is the least."""
    final: Figure
    final_points: Figure | None
    """Final accuracy less that of `against` on the same seeds, in points of a per cent."""
    behind: Figure
    """Accuracy of the fastest fifth of the vehicles less the slowest fifth's, each on frames like its own."""
    gained_less: Figure
    """The same of the gain since the first model."""
    worst_condition: str
    worst: Figure
    staleness_mean: Figure
    staleness_max: int
    staleness: dict[str, int]
    """Accepted updates of all seeds by staleness."""
    joules: Figure
    bytes_up: Figure
    curve: list[tuple[float, float, float]]
    """(virtual seconds, mean accuracy, half the width of its interval)."""

    @classmethod
    def of(
        cls,
        *,
        scenario: str,
        candidate: str,
        choice: dict[str, Any],
        curves: dict[int, Curve],
        against: dict[int, Curve],
        target: float,
    ) -> "Result":
        """From two seeds or more."""
        every = list(curves.values())
        times = [curve.seconds_to(target) for curve in every]
        updates = [curve.updates_to(target) for curve in every]
        arrived = None not in times
        shared = [(curves[seed], against[seed]) for seed in curves if seed in against]
        worst = min(
            every[0].by_condition, key=lambda c: float(np.mean([e.by_condition[c] for e in every]))
        )
        return cls(
            scenario=scenario,
            candidate=candidate,
            choice=choice,
            target=target,
            seeds=len(every),
            reached=sum(time is not None for time in times),
            seconds=_figure(times) if arrived else None,
            updates=_figure(updates) if arrived else None,
            sooner=_ratio(shared, target),
            is_sooner_at_least=any(theirs.seconds_to(target) is None for _, theirs in shared),
            final=_over(every, lambda c: c.final),
            final_points=(
                mean_ci95([100 * (mine.final - theirs.final) for mine, theirs in shared])
                if len(shared) > 1
                else None
            ),
            behind=_over(every, Curve.slowest_behind_fastest),
            gained_less=_over(every, Curve.slowest_gained_less),
            worst_condition=worst,
            worst=_over(every, lambda c: c.by_condition[worst]),
            staleness_mean=_over(every, _mean_staleness),
            staleness_max=max(max(map(int, c.staleness), default=0) for c in every),
            staleness=_pooled(every),
            joules=_over(every, lambda c: c.joules),
            bytes_up=_over(every, lambda c: c.bytes_up),
            curve=[
                (second, *mean_ci95([c.accuracy[n] for c in every]))
                for n, second in enumerate(every[0].seconds)
            ],
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _over(curves: Sequence[Curve], figure: Any) -> Figure:
    return mean_ci95([float(figure(curve)) for curve in curves])


def _figure(values: Sequence[float | int | None]) -> Figure:
    return mean_ci95([float(value) for value in values if value is not None])


def _ratio(shared: Sequence[tuple[Curve, Curve]], target: float) -> Figure | None:
    """Times are multiples of each other, so logarithms are averaged."""
    logs = []
    for mine, theirs in shared:
        ours_s, theirs_s = mine.seconds_to(target), theirs.seconds_to(target)
        if not ours_s:
            return None
        if theirs_s is None:
            theirs_s = theirs.seconds[-1]
        logs.append(float(np.log(theirs_s / ours_s)))
    if len(logs) < 2:
        return None
    mean, half = mean_ci95(logs)
    return float(np.exp(mean)), float(np.exp(half))


def _mean_staleness(curve: Curve) -> float:
    count = sum(curve.staleness.values())
    return sum(int(late) * n for late, n in curve.staleness.items()) / max(1, count)


def _pooled(curves: Sequence[Curve]) -> dict[str, int]:
    pooled: dict[int, int] = {}
    for curve in curves:
        for late, n in curve.staleness.items():
            pooled[int(late)] = pooled.get(int(late), 0) + n
    return {str(late): n for late, n in sorted(pooled.items())}


HEADINGS = (
    "candidate", "to target", "sooner", "updates", "final", "points", "fast - slow", "worst", "staleness",
)  # fmt: skip


def tables(results: Sequence[Result]) -> list[Table]:
    """For a terminal, one a scenario, with the columns that fit into it; the page has all."""
    drawn = []
    for scenario in dict.fromkeys(result.scenario for result in results):
        mine = [result for result in results if result.scenario == scenario]
        one = Table(title=f"{scenario}, target {mine[0].target:.1%}", box=SIMPLE_HEAD)
        shown = (0, 1, 2, 4, 6)
        for number in shown:
            one.add_column(HEADINGS[number], justify="right" if number else "left")
        for result in mine:
            every = cells(result)
            one.add_row(*(every[number] for number in shown))
        drawn.append(one)
    return drawn


def cells(result: Result) -> tuple[str, ...]:
    """As people read them, one for each of HEADINGS."""
    final, worst, late = result.final, result.worst, result.staleness_mean
    seconds, sooner, gained = result.seconds, result.sooner, result.final_points
    at_least = "≥ " if result.is_sooner_at_least else ""
    minutes = (
        f"{seconds[0] / 60:,.1f} ± {seconds[1] / 60:.1f} min"
        if seconds
        else f"{result.reached} of {result.seeds} seeds"
    )
    return (
        result.candidate,
        minutes,
        f"{at_least}{sooner[0]:.2f}x (x/{sooner[1]:.2f})" if sooner else "",
        f"{result.updates[0]:,.0f} ± {result.updates[1]:,.0f}" if result.updates else "",
        f"{final[0]:.1%} ± {100 * final[1]:.1f}",
        f"{gained[0]:+.2f} ± {gained[1]:.2f}" if gained else "",
        f"{100 * result.behind[0]:+.1f} ± {100 * result.behind[1]:.1f}",
        f"{worst[0]:.1%} ± {100 * worst[1]:.1f} {result.worst_condition}",
        f"{late[0]:.1f} (most {result.staleness_max})",
    )
