"""A setting that a command accepts takes effect, or is an error that names it."""

import ast
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.config import ServerConfig
from fleetfl.config import PARTS, ConfigError, Section, load, merge, read, validate, with_overrides
from fleetfl.config.usage import Usage, leaves
from fleetfl.fleet_config import FleetConfig
from sim.bench import codec as bench_codec
from sim.bench import rate_accuracy
from sim.bench.config import BenchConfig
from sim.chaos import campaign
from sim.chaos.config import ChaosConfig
from sim.compare import run as compare
from sim.datasets.drone_world import Config as DroneWorld
from sim.fleet.run import simulate
from sim.fleet.scenario import Scenario, scenario_of
from sim.fleet.scenario import usage_of as usage_of_virtual
from sim.live.config import SimConfig
from sim.live.run import usage_of as usage_of_live
from sim.settings import CrewConfig, SceneConfig
from sim.world import CLASSES
from tests.reads import Read, noted_reads, settings_of
from vehicle_agent.config import VehicleConfig

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]
FLEET: dict[str, Any] = {"fleet": "f", "seed": 1, "model": {"classes": list(CLASSES)}}
SHARED = tuple(FleetConfig.model_fields)


def unread(usage: Usage, parts: dict[str, Any], reads: set[Read]) -> list[str]:
    """Settings of these parts that the command takes and nothing has read."""
    was_read: dict[str, bool] = {}
    for part, settings in parts.items():
        for path, read_ in settings_of(settings, part):
            within = path.partition(".")[2]
            where = within if within.split(".")[0] in SHARED else path
            was_read[where] = was_read.get(where, False) or read_ in reads
    return [path for path, ok in was_read.items() if not ok and usage.objection(path) is None]


# Commands whose work is done in this process: what a short run reads is noted.

SYNTHETIC: dict[str, Any] = {
    **FLEET,
    "server": {"aggregator": {"kind": "fedbuff", "goal": 5}},
    "vehicle": {"codec": {"kind": "int8"}, "agent": {"status_s": 3600, "resend_s": 60}},
    "sim": {
        "clock": "virtual",
        "num_vehicles": 20,
        "learning": {"kind": "synthetic", "size": 16},
        "stop": {"updates": 60, "hours": 48, "releases": 1000},
        "links": [{"kind": "lte", "repeated_share": 0.2, "late_share": 0.2}],
        "lost_share": 0.05,
    },
}
VISION: dict[str, Any] = {
    **FLEET,
    "server": {"aggregator": {"kind": "fedbuff", "goal": 2}, "closed_form": {"vehicles": 3}},
    "vehicle": {
        "trainer": {"local_steps": 1, "batch_size": 2},
        "agent": {"sums_of_frames": 10},
    },
    "sim": {
        "clock": "virtual",
        "num_vehicles": 4,
        "dataset": {"kind": "drone_world", "num_initial": 20, "num_held_out": 20},
        "stop": {"updates": 10},
    },
}
BY_THE_COMMAND = {"sim.clock", "sim.runs"}
"""Settings that `fleetfl sim run` reads itself, around `simulate`."""
ASKED_FOR = {"model.classes"}
"""Settings that no file can be without."""


def with_sim(tree: dict[str, Any], **sim: Any) -> dict[str, Any]:
    return {**tree, "sim": {**tree["sim"], **sim}}


VIRTUAL = {
    "continuous": with_sim(
        SYNTHETIC, availability={"kind": "flights", "a_day": 40, "to_hour": 24, "from_hour": 0}
    ),
    "sampled": with_sim(SYNTHETIC, participation={"kind": "sampled", "concurrency": 6}),
    "rounds": with_sim(SYNTHETIC, participation={"kind": "rounds", "cohort": 8}),
    "vision": with_sim(VISION, links=[{"kind": "lte", "late_share": 0.1}]),
}


@pytest.mark.parametrize("name", VIRTUAL)
def test_a_virtual_fleet_reads_every_setting_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    scenario = scenario_of(VIRTUAL[name], "test")
    with noted_reads(monkeypatch) as reads:
        simulate(scenario, folder=tmp_path)
    parts = {part: getattr(scenario, part) for part in ("sim", "server", "vehicle")}
    left = unread(usage_of_virtual(scenario.sim), parts, reads)
    assert set(left) <= BY_THE_COMMAND | ASKED_FOR


COMPARE: dict[str, Any] = {
    **FLEET,
    "sim": {
        "dataset": {
            "kind": "drone_world",
            "num_initial": 20,
            "num_fleet": 200,
            "num_held_out": 20,
        },
        "weathers": [{"condition": "fog"}],
    },
    "compare": {
        "seeds": [1, 2],
        "tuning_seeds": [9],
        "trials": 2,
        "against": "one",
        "scenarios": [
            {
                "name": "few",
                "fleet": {
                    "kind": "quick",
                    "num_vehicles": 5,
                    "concurrency": 5,
                    "horizon_s": 100,
                    "evaluations": 20,
                    "local_steps": 1,
                },
            }
        ],
        "candidates": [
            {
                "name": "one",
                "closed_form": 2,
                "aggregator": {"kind": "fedbuff", "goal": 2},
                "grid": {"optimizer.learning_rate": [0.5, 1.0]},
            }
        ],
    },
}


def test_a_comparison_reads_every_setting_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "compare.yaml"
    file.write_text(yaml.safe_dump(with_sim(COMPARE, runs=str(tmp_path / "runs"))))
    with noted_reads(monkeypatch) as reads:
        monkeypatch.setattr(compare, "measured", in_this_process)
        *_, last = compare.run(file)
    sim = validate({**read(file), "transport": {"kind": "memory"}}, "sim", SceneConfig, "test")
    left = unread(compare.USAGE, {"compare": last.config, "sim": sim}, reads)
    assert set(left) <= ASKED_FOR


def in_this_process(log: Path, trials: dict[str, Any], work: Any, *, workers: Any) -> Iterator[Any]:
    done: dict[str, Any] = {}
    for key, trial in trials.items():
        done[key] = work(trial)
        yield done


BENCH: dict[str, Any] = {
    **FLEET,
    "server": {"aggregator": {"kind": "fedbuff", "goal": 2}},
    "vehicle": {"trainer": {"local_steps": 1, "batch_size": 2}},
    "sim": {
        "num_vehicles": 2,
        "dataset": {"kind": "drone_world", "num_initial": 20, "num_held_out": 20},
        "weathers": [{"condition": "fog"}],
    },
    "bench": {
        "updates": 2,
        "seeds": [1, 2],
        "baseline": "int8",
        "codecs": [{"name": "int8", "codec": {"kind": "int8"}}],
    },
}


def test_a_bench_reads_every_setting_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bench.yaml"
    file.write_text(yaml.safe_dump(with_sim(BENCH, runs=str(tmp_path / "runs"))))
    with noted_reads(monkeypatch) as reads:
        monkeypatch.setattr(rate_accuracy, "measured", in_this_process)
        for _ in rate_accuracy.run(file):
            pass
    tree = {**read(file), "transport": {"kind": "mqtt"}}
    parts = {
        "bench": validate(tree, "bench", BenchConfig, "test"),
        "sim": validate(tree, "sim", CrewConfig, "test"),
        "server": ServerConfig.model_validate(of_part(tree, "server", state="s")),
        "vehicle": VehicleConfig.model_validate(
            of_part(tree, "vehicle", name="v", state="s", sensor=CAMERA)
        ),
    }
    assert set(unread(rate_accuracy.USAGE, parts, reads)) <= ASKED_FOR


CAMERA = {"kind": "sim.sensors.drone_camera"}


def of_part(tree: dict[str, Any], part: str, **ours: Any) -> dict[str, Any]:
    shared = {name: value for name, value in tree.items() if name not in PARTS}
    return {**shared, **tree.get(part, {}), **ours}


# Commands that start processes hand whole parts over, and code reads every field of those.


@functools.cache
def attributes_read() -> set[str]:
    """Names of attributes that the code of the packages reads."""
    return {
        node.attr
        for package in ("fleetfl", "actors", "vehicle_agent", "sim")
        for file in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


SERVER: dict[str, Any] = {**FLEET, "transport": {"kind": "mqtt"}, "server": {"state": "s"}}
VEHICLE: dict[str, Any] = {
    **FLEET,
    "transport": {"kind": "mqtt"},
    "vehicle": {"name": "v", "state": "s", "sensor": CAMERA},
}
LIVE: dict[str, Any] = with_sim(
    {**FLEET, "sim": {}, "transport": {"kind": "mqtt"}},
    dataset={"kind": "drone_world"},
    weathers=[{"condition": "fog"}],
    stop={"seconds": 1},
    centralized_baseline={},
)
CHAOS: dict[str, Any] = {
    **FLEET,
    "transport": {"kind": "mqtt"},
    "chaos": {
        "faults": [
            {"kind": "kill", "who": "gateway"},
            {"kind": "link", "whose": "fleet", "cut": True},
            {"kind": "broker"},
            {"kind": "clock", "by_s": 60},
        ]
    },
}


@pytest.mark.parametrize(
    ("tree", "part", "schema"),
    [
        (SERVER, "server", ServerConfig),
        (VEHICLE, "vehicle", VehicleConfig),
        (LIVE, "sim", SimConfig),
        (CHAOS, "chaos", ChaosConfig),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_the_code_reads_every_setting_of_a_part(
    tree: dict[str, Any], part: str, schema: type[Section]
) -> None:
    settings = validate(tree, part, schema, "test")
    names = {name for _, (_, name) in settings_of(settings, part)}
    assert names <= attributes_read()


def test_what_a_live_run_sets_itself_is_not_taken_from_a_file() -> None:
    """Settings that are handed over with other values than the file's are errors, all others go through."""
    usage = usage_of_live(validate(LIVE, "sim", SimConfig, "test"))
    replaced = {"state", "initial", "held_out", "resume"}
    for name in set(ServerConfig.model_fields) - set(SHARED):
        assert (usage.objection(f"server.{name}") is not None) == (name in replaced)
    replaced = {"name", "state", "sensor", "server_key"}
    for name in set(VehicleConfig.model_fields) - set(SHARED):
        assert (usage.objection(f"vehicle.{name}") is not None) == (name in replaced)


# Whatever is not taken is one error that names it.

NAMED = [
    ("virtual", VIRTUAL["continuous"], "server.max_in_flight=7"),
    ("virtual", VIRTUAL["continuous"], "server.state=s"),
    ("virtual", VIRTUAL["continuous"], "vehicle.sensor.kind=image_folder"),
    ("virtual", VIRTUAL["continuous"], "vehicle.outbox.max_record=1"),
    ("virtual", VIRTUAL["continuous"], "vehicle.trainer.local_steps=3"),
    ("virtual", VIRTUAL["continuous"], "server.closed_form.vehicles=3"),
    ("virtual", VIRTUAL["continuous"], "transport.kind=mqtt"),
    ("virtual", VIRTUAL["continuous"], "server.max_in_fligt=7"),
    ("virtual", VIRTUAL["sampled"], "vehicle.agent.pause_s=3"),
    ("virtual", VIRTUAL["sampled"], "vehicle.agent.max_waiting=3"),
    ("virtual", VIRTUAL["sampled"], "chaos.num_vehicles=3"),
    ("compare", COMPARE, "server.aggregator.goal=3"),
    ("compare", COMPARE, "server.agregator.gaol=3"),
    ("compare", COMPARE, "vehicle.trainer.local_steps=3"),
    ("compare", COMPARE, "sim.num_vehicles=3"),
    ("compare", COMPARE, "sim.dataset.alpha=3"),
    ("compare", COMPARE, "model.adapter.rank=3"),
    ("bench", BENCH, "server.closed_form.vehicles=3"),
    ("bench", BENCH, "vehicle.codec.kind=int8"),
    ("codec", BENCH, "server.max_staleness=3"),
    ("chaos", CHAOS, "vehicle.trainer.local_steps=3"),
    ("chaos", CHAOS, "server.state=s"),
    ("live", LIVE, "server.initial=s"),
    ("live", LIVE, "vehicle.name=s"),
    ("live", LIVE, "transport.port=1"),
]


def taken(command: str, tree: dict[str, Any], overrides: Sequence[str]) -> None:
    laid = with_overrides(tree, overrides)
    usages = {
        "compare": compare.USAGE,
        "bench": rate_accuracy.USAGE,
        "codec": bench_codec.USAGE,
        "chaos": campaign.USAGE,
    }
    if command == "virtual":
        scenario_of(laid, "test", overrides=overrides)
    elif command == "live":
        tree = {k: v for k, v in laid.items() if k != "transport" or overrides[0].startswith(k)}
        usage_of_live(validate(laid, "sim", SimConfig, "test")).require(tree, "test", overrides)
    else:
        usages[command].require(laid, "test", overrides)


@pytest.mark.parametrize(("command", "tree", "override"), NAMED, ids=lambda each: str(each)[:40])
def test_a_setting_that_is_not_used_is_named(
    command: str, tree: dict[str, Any], override: str
) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0].replace(".", r"\.")):
        taken(command, tree, [override])


def test_all_that_is_not_used_is_told_at_once() -> None:
    """What others' parts of a file say is theirs; what --set says is not."""
    usage = Usage("fleetfl x", ("a", "b.c.d"), {"a.e": "why"}, belongs_to_others=("z",))
    usage.require({"a": {"f": 1}, "b": {"c": {"d": {"e": 2}}}, "z": {"y": 1}}, "file")
    with pytest.raises(ConfigError) as said:
        usage.require({"a": {"e": 1, "f": 1}, "b": {"c": 1}, "z": {"y": 1}}, "file", ["z.y=1"])
    assert str(said.value) == (
        "file: `fleetfl x` does not use these settings, leave them out: "
        "a.e (why); b.c, z.y (nothing reads it)"
    )


def test_a_setting_of_another_part_is_no_setting_of_a_server(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(yaml.safe_dump({**SERVER, "vehicle": VEHICLE["vehicle"]}))
    assert load(file, "server", ServerConfig, ["server.max_staleness=3"]).max_staleness == 3
    with pytest.raises(ConfigError, match=r"vehicle\.codec\.kind \(of another part than server\)"):
        load(file, "server", ServerConfig, ["vehicle.codec.kind=int8"])


def test_a_setting_that_others_make_idle_is_named() -> None:
    partition = {"kind": "classes"}
    world = {"kind": "drone_world", "partition": partition}
    validate(with_sim(LIVE, dataset=world), "sim", SimConfig, "test")
    with pytest.raises(ConfigError, match=r"sim\.dataset\.alpha \(`partition`"):
        validate(with_sim(LIVE, dataset={**world, "alpha": 2.0}), "sim", SimConfig, "test")
    with pytest.raises(ConfigError, match=r"sim\.links\.1\.late_s \(no packet is late"):
        scenario_of(
            with_sim(SYNTHETIC, links=[{"kind": "lte"}, {"kind": "lte", "late_s": 3}]), "test"
        )
    assert DroneWorld(alpha=2.0).idle == {}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_file_is_taken_by_its_command(path: Path) -> None:
    tree = read(path)
    usages = {
        "compare": compare.USAGE,
        "bench": rate_accuracy.USAGE,
        "chaos": campaign.USAGE,
    }
    part = next((part for part in usages if part in tree), None)
    if part is not None:
        usages[part].require(tree, str(path))
    elif "clock" in tree.get("sim", {}):
        assert isinstance(scenario_of(tree, str(path)), Scenario)
    elif "sim" in tree:
        config = validate({**tree, "transport": {"kind": "mqtt"}}, "sim", SimConfig, str(path))
        usage_of_live(config).require(tree, str(path))
    else:
        assert list(leaves(tree))


# Tables of choices, and fleets that cannot work.


def test_a_table_of_choices_replaces_another() -> None:
    tree = {"sim": {"devices": {"a": 1, "b": 2}, "stop": {"hours": 1}}}
    new = {"sim": {"devices": {"c": 3}, "stop": {"updates": 2}}}
    both = {"devices": {"c": 3}, "stop": {"hours": 1, "updates": 2}}
    assert merge(tree, new)["sim"] == both
    assert with_overrides(tree, ["sim.devices={c: 3}"])["sim"]["devices"] == {"c": 3}
    one = with_overrides(tree, ["sim.devices.a=5"])
    assert one["sim"]["devices"] == {"a": 5, "b": 2}


@pytest.mark.parametrize(
    ("sim", "said"),
    [
        ({"devices": {"jetson_orin": 2, "phone_soc": -1}}, r"devices: .*expected positive shares"),
        ({"devices": {}}, r"devices: .*expected positive shares"),
        ({"weathers": []}, r"sim\.weathers: "),
        ({"participation": {"kind": "rounds", "cohort": 4}}, r"server\.aggregator\.goal or more"),
        (
            {"participation": {"kind": "rounds", "cohort": 8}, "num_vehicles": 3},
            r"3 vehicles at work in a round, expected server\.aggregator\.goal or more: 5",
        ),
    ],
    ids=str,
)
def test_a_fleet_that_cannot_work_is_refused_in_one_line(sim: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        scenario_of(with_sim(SYNTHETIC, **sim), "test")
    assert "\n" not in str(refused.value)


def test_a_head_that_no_vehicle_sends_sums_for_is_refused() -> None:
    silent = {**VISION, "vehicle": {"trainer": {"local_steps": 1}}}
    with pytest.raises(ConfigError, match=r"server\.closed_form: no vehicle sends sums"):
        scenario_of(silent, "test")
