"""What an earlier run left stays until it is known that the new one can start."""

import io
import socket

import numpy as np
import pytest
import yaml
from rich.console import Console

from actors.cluster import serving
from actors.config import ServerConfig
from fleetfl import FleetflError
from fleetfl.storage.state_lock import state_lock
from fleetfl.transport.memory import Config as Memory
from sim.fleet.command import run as run_virtual
from sim.live.run import clear, require_clearable, run
from sim.partitions._label_skew import PartitionError, dirichlet_rows
from sim.report.progress import Progress

pytestmark = pytest.mark.unit
CLASSES = [
    "car",
    "truck",
    "bus",
    "boat",
    "person_group",
    "building",
    "tree_line",
    "solar_array",
    "tent_camp",
]
CLASSES += ["pylon"]


@pytest.fixture
def taken():
    """A port that something listens at."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def archive(tmp_path):
    """Forty pictures, of which one has a label too many."""
    path = tmp_path / "data.npz"
    pictures = np.zeros((40, 8, 8, 3), np.uint8)
    labels = np.arange(40) % 10
    wild = labels.copy()
    wild[3] = 10
    np.savez(
        tmp_path / "good.npz", x_train=pictures, y_train=labels, x_test=pictures, y_test=labels
    )
    np.savez(path, x_train=pictures, y_train=labels, x_test=pictures, y_test=wild)
    return path


@pytest.fixture
def fleet(tmp_path):
    """Settings of a fleet, and the folder of its last run with what that left."""
    path = tmp_path / "fleet.yaml"
    tree = {
        "fleet": "f",
        "model": {"classes": CLASSES},
        "sim": {
            "runs": str(tmp_path / "runs"),
            "num_vehicles": 2,
            "dataset": {"kind": "drone_world"},
            "weathers": [{"condition": "fog"}],
            "stop": {"seconds": 1},
        },
    }
    path.write_text(yaml.safe_dump(tree))
    folder = tmp_path / "runs" / "f"
    (folder / "journal").mkdir(parents=True)
    for name in ("events.jsonl", "report.html", "journal/rows"):
        (folder / name).write_text("of before")
    return path, folder


def left(folder):
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.read_bytes() == b"of before"
    }


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["server.aggregator={{kind: fedbuff, goal: 0}}"], "server.aggregator.goal"),
        (["vehicle.codec.kind=zip"], "vehicle.codec"),
        (["server="], "server: got null"),
        (["vehicle=3"], "vehicle: got 3"),
        (["transport="], "transport"),
        (["server.http.port={taken}"], "server.http 127.0.0.1:{taken} cannot be listened on"),
        (
            [
                "sim.num_vehicles=512",
                "sim.dataset={{kind: photographs, path: '{good}', {rows}}}",
            ],
            "512 vehicles 32",
        ),
        (["sim.dataset.alpha=0"], "sim.dataset.alpha"),
        (["sim.dataset={{kind: photographs, path: gone.npz}}"], "gone.npz is missing"),
        (["sim.dataset={{kind: photographs, path: '{archive}'}}"], "rows 0 to 10000 of 40"),
        (["sim.dataset={{kind: photographs, path: '{archive}', {rows}}}"], "labels 0 to 10"),
        (["model.classes=[a, b]"], "model.classes"),
        (["model.backbone={{kind: timm, name: gone}}"], ""),
    ],
)
def test_a_run_that_cannot_start_leaves_the_last_ones_results(
    fleet, taken, archive, overrides, says
):
    path, folder = fleet
    names = {
        "taken": taken,
        "archive": archive,
        "rows": "initial_rows: [0, 20], fleet_rows: [20, 40]",
        "good": archive.with_name("good.npz"),
    }
    before = left(folder)
    assert len(before) == 3
    with pytest.raises(FleetflError) as unfit:
        run(
            path,
            [each.format(**names) for each in overrides],
            progress=Progress(Console(file=io.StringIO())),
        )
    assert says.format(**names) in str(unfit.value)
    assert left(folder) == before


def test_a_run_that_goes_on_is_not_cleared_away(fleet):
    path, folder = fleet
    with (
        state_lock(folder),
        pytest.raises(FleetflError, match="belongs to another server that runs"),
    ):
        run(path, [], progress=Progress(Console(file=io.StringIO())))
    assert len(left(folder)) == 3


def test_what_a_server_leaves_beside_its_results_is_a_runs_own(fleet):
    _, folder = fleet
    for name in ("gateway-id", "bans.json", "events.jsonl.1", "events.jsonl.2"):
        (folder / name).write_text("of before")
    require_clearable(folder)
    clear(folder)
    assert list(folder.iterdir()) == []
    (folder / "thesis.txt").write_text("of before")
    with pytest.raises(FleetflError, match=r"holds \['thesis\.txt'\], which no run wrote"):
        require_clearable(folder)


@pytest.mark.parametrize("override", ["model.backbone={kind: timm, name: gone}", "server=3"])
def test_so_it_is_on_virtual_time(fleet, override):
    path, folder = fleet
    tree = yaml.safe_load(path.read_text())
    tree["sim"] = {"runs": tree["sim"]["runs"], "clock": "virtual", "num_vehicles": 2}
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(FleetflError):
        run_virtual(path, [override], progress=Progress(Console(file=io.StringIO())))
    assert "events.jsonl" in left(folder)


def test_a_server_that_cannot_start_leaves_what_it_would_not_go_on_from(
    tmp_path, model_config, taken
):
    state = tmp_path / "state"
    (state / "journal").mkdir(parents=True)
    (state / "journal" / "rows").write_text("of before")
    (tmp_path / "notes.txt").write_text("no adapter")
    config = ServerConfig(
        fleet="f", transport=Memory(), state=state, model=model_config, resume=False, http=None
    )
    for wrong in (
        {"initial": tmp_path / "notes.txt"},
        {"monitor": config.monitor.model_copy(update={"port": taken})},
        {"keys": config.keys.model_copy(update={"folder": tmp_path / "gone", "policy": "listed"})},
    ):
        with pytest.raises(FleetflError), serving(config.model_copy(update=wrong)):
            pass
        assert left(state) == {"journal/rows"}


def test_data_that_cannot_be_dealt_is_said_at_once():
    """5,000 vehicles of 32 rows each are 160,000 rows."""
    with pytest.raises(PartitionError, match="do not give 5000 vehicles 32 each"):
        dirichlet_rows(np.arange(100_000) % 10, 5000, 0.3, seed=0)
