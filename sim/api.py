"""Fleets from Python: `fleetfl.simulate("configs/virtual-fleet.yaml", "sim.seed=3")`."""

import asyncio
import copy
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from fleetfl.config import merge, read, table, with_overrides
from fleetfl.events.event_log import EventReader
from sim.report.progress import Progress

T = TypeVar("T")


@dataclass(frozen=True)
class Summary:
    """Results of a finished fleet run. Accuracies are fractions, 0 to 1."""

    name: str
    folder: Path
    """Folder with the run's events.jsonl, summary.json and report.html."""
    seed: int
    num_vehicles: int
    releases: int
    """Number of the newest released model version; the initial model is version 0."""
    updates_accepted: int
    updates_duplicate: int
    updates_refused: dict[str, int]
    """Number of refused updates by reason."""
    staleness_mean: float
    """Mean staleness of the accepted updates, in model versions."""
    staleness_max: int
    accuracy_start: float
    """Accuracy of the initial model (version 0) on the held-out frames."""
    accuracy_end: float
    """Accuracy of the newest version on the held-out frames."""
    bytes_up: int
    bytes_down: int
    duration_s: float
    """Duration of the run on the fleet's clock, in seconds; virtual seconds in a simulated fleet."""
    incidents: tuple[str, ...]
    """Sentences about everything unusual that happened, in order of time."""
    content: dict[str, Any]
    """The whole content of summary.json, with fields that have no attribute here."""

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Summary":
        """Build a summary from the parsed content of summary.json."""
        return cls(
            name=content["name"],
            folder=Path(content["folder"]),
            seed=content["seed"],
            num_vehicles=content["num_vehicles"],
            releases=content["releases"],
            updates_accepted=content["updates_accepted"],
            updates_duplicate=content["updates_duplicate"],
            updates_refused=content["updates_refused"],
            staleness_mean=content["staleness"]["mean"],
            staleness_max=content["staleness"]["max"],
            accuracy_start=content["accuracy"]["start"],
            accuracy_end=content["accuracy"]["end"],
            bytes_up=content["bytes_up"],
            bytes_down=content["bytes_down"],
            duration_s=content["duration_s"],
            incidents=tuple(content["incidents"]),
            content=content,
        )

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """The run's events with one of these names, or all events without a name, as dicts.

        `pandas.DataFrame` takes the list as it is; docs/events.md describes the fields.
        """
        events = EventReader(self.folder / "events.jsonl").read()
        return [event for event in events if not kinds or event["event"] in kinds]


def simulate(
    config: str | Path | Mapping[str, Any], *overrides: str, progress: bool = False
) -> Summary:
    """Run a fleet to its end and return its summary, as `fleetfl sim run` does.

    `config` is a file of settings, or their tables as a dict (which may have `extends`); an override is as
    after --set, such as "sim.num_vehicles=50". Results are in RUNS/FLEET: `sim.runs` and `fleet`. Where an
    event loop runs already, as in a notebook, the fleet runs in a thread with a loop of its own, and this
    call returns when it is done. A live fleet starts processes that import the script they come from: a
    script calls this under `if __name__ == "__main__":`. For the same bits on other processors, set what
    sim/fleet/instructions.py names before NumPy is imported. Raises ConfigError, and the errors of a fleet's
    parts.
    """
    tree, source = _settings(config, overrides)
    return _beside_any_loop(lambda: _run(tree, source, progress, overrides))


def _settings(
    config: str | Path | Mapping[str, Any], overrides: tuple[str, ...]
) -> tuple[dict[str, Any], str]:
    if not isinstance(config, Mapping):
        return with_overrides(read(Path(config)), overrides), str(config)
    tree = copy.deepcopy(dict(config))
    if "extends" in tree:
        tree = merge(read(Path(tree.pop("extends"))), tree)
    return with_overrides(tree, overrides), "settings"


def _run(tree: dict[str, Any], source: str, progress: bool, overrides: tuple[str, ...]) -> Summary:
    if table(tree, "sim", source).get("clock") == "virtual":
        from sim.fleet.command import run_settings
    else:
        from sim.live.run import run_settings
    with Progress(Console(quiet=not progress)) as shown:
        return Summary.of(run_settings(tree, source, progress=shown, overrides=overrides))


def _beside_any_loop(call: Callable[[], T]) -> T:
    """Return `call()`, run in a new thread if this thread already runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    given: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            given.append(call())
        except BaseException as failed:
            raised.append(failed)

    thread = threading.Thread(target=work, name="fleetfl.simulate", daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return given[0]
