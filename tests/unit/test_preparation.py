"""Release 0 is made in a process beside the server's start."""

import multiprocessing

import numpy as np
import pytest
from safetensors.numpy import save_file

from actors.config import ServerConfig
from actors.errors import ServerError
from actors.startup import initial_beside, with_initial
from fleetfl.models.adapters.lora import Config as Lora
from fleetfl.registry.adapter_file import AdapterFileError, read_adapter, write_adapter
from fleetfl.transport.memory import Config as Memory
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit


def ours():
    return [each for each in multiprocessing.active_children() if each.name == "release 0"]


@pytest.fixture
def config(model_config, tmp_path):
    return ServerConfig(
        fleet="demo", transport=Memory(), state=tmp_path / "state", model=model_config, seed=3
    )


def test_release_0_is_the_model_at_its_starting_point(config):
    with initial_beside(config) as initial:
        path = initial().initial
    assert path is not None
    layout, vector = read_adapter(path)
    model = config.model.build(seed=3)
    assert layout == model.layout
    np.testing.assert_array_equal(vector, model.vector())
    assert not ours()


def test_a_file_for_another_model_is_named_with_both_sizes(config, tmp_path):
    path = tmp_path / "other.safetensors"
    write_adapter(path, Layout.of({"w": np.zeros((2, 3), np.float32)}), np.zeros(6, np.float32))
    changed = config.model_copy(update={"initial": path})
    with (
        initial_beside(changed) as initial,
        pytest.raises(
            ServerError, match=r"other.safetensors.*tensors \(1 of 6 values against .* of 38794"
        ),
    ):
        initial()


@pytest.mark.parametrize("runs_model", [True, False])
def test_an_older_versions_file_is_taken_to_be_of_the_settings_model(
    config, runs_model, caplog, tmp_path
):
    """It says nothing of what its values mean. A server without endpoint builds the model for that once."""
    model, path = config.model.build(seed=3), tmp_path / "older.safetensors"
    save_file(model.layout.unflatten(model.vector()), path)
    changed = config.model_copy(update={"initial": path} | ({} if runs_model else {"http": None}))
    found = with_initial(changed).initial
    assert "older.safetensors does not say what its values mean" in caplog.text
    layout, vector = read_adapter(found)
    assert (layout, vector.tobytes()) == (model.layout, model.vector().tobytes())


def test_a_file_that_says_its_meaning_is_taken_at_its_word_where_nothing_runs_the_model(
    config, tmp_path
):
    path = tmp_path / "initial.safetensors"
    write_adapter(path, Layout.flat(3), np.zeros(3, np.float32))
    changed = config.model_copy(update={"initial": path, "http": None})
    assert with_initial(changed).initial == path


def test_a_file_of_another_meaning_is_named_with_both_values(config, tmp_path):
    other = config.model.model_copy(update={"adapter": Lora(alpha=4.0)}).build()
    path = tmp_path / "other.safetensors"
    write_adapter(path, other.layout, other.vector())
    with pytest.raises(ServerError, match=r"other\.safetensors.*adapter \(.*4\.0.*against.*16\.0"):
        with_initial(config.model_copy(update={"initial": path}))


def test_a_file_that_is_none_is_said_before_anything_starts(config, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no adapter")
    changed = config.model_copy(update={"initial": path})
    with pytest.raises(AdapterFileError, match=r"notes.txt"), initial_beside(changed):
        pytest.fail("it was let through")
    assert not ours()


def test_a_killed_process_is_an_error_and_no_wait_for_ever(config):
    with initial_beside(config) as initial:
        for process in ours():
            process.kill()
        with pytest.raises(ServerError, match=r"status -9.*memory"):
            initial()
