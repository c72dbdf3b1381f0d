"""The command line's answers to what people get wrong, in a process of its own or in this one."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleetfl.cli import main
from fleetfl.protocol import wire
from fleetfl.protocol.signing import Signer
from fleetfl.registry.adapter_file import write_adapter
from fleetfl.vectors import Layout

pytestmark = pytest.mark.slow


def fleetfl(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "fleetfl", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def ended(capsys):
    """Runs the command here, where all that it imports is imported once: (status, stdout, stderr)."""

    def run(*arguments):
        meaning = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as end:
                main(list(arguments))
        finally:
            signal.signal(signal.SIGTERM, meaning)
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return run


def test_help_of_the_installed_command():
    done = fleetfl("--help")
    assert done.returncode == 0
    assert "fleetfl" in done.stdout


COMMANDS = [
    "demo",
    "sim run",
    "server run",
    "vehicle run",
    "vehicle key",
    "codec inspect",
    "model",
    "model list",
    "model show",
    "model diff",
    "model rollback",
    "model export",
    "doctor",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, ended):
    status, out, _ = ended(*command.split(), "--help")
    assert status == 0
    assert command in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sim", "run", "gone.yaml"], "error: gone.yaml: cannot be read"),
        (["demo", "--set", "sim.vehicles=3"], "sim.vehicles: "),
        (["demo", "--set", "sim.num_vehicles=none"], "sim.num_vehicles: "),
        (["demo", "--set", "vehicle.codec.kind=zip"], "vehicle.codec: no kind 'zip'"),
        (["demo", "--set", "server.aggregator.goal=0"], "server.aggregator.goal: "),
        (["demo", "--set", "model.classes=[a, b]"], "model.classes: the drone world shows"),
        (["server", "run", "configs/quickstart.yaml"], "server.state: "),
        (["model", "list", "--state", "gone"], "error: there are no releases in gone/registry"),
        (["codec", "inspect", "gone.bin"], "error: gone.bin: cannot be read"),
        (["codec", "inspect", "README.md"], "error: frame starts with b'# fl', expected b'FFL"),
        (
            [
                "codec",
                "inspect",
                "tests/golden/frames/status.bin",
                "--keys",
                "gone",
                "--fleet",
                "f",
            ],
            "error: folder of keys gone is missing",
        ),
    ],
)
def test_mistakes_are_one_line_that_names_the_field(arguments, says, tmp_path, ended):
    if arguments[0] == "demo":
        arguments = [*arguments, "--set", f"sim.runs={tmp_path}"]
    status, _, err = ended(*arguments)
    assert status == 1
    assert says in err
    assert "Traceback" not in err


def test_a_vehicles_key_stays_the_same_and_is_one_line(tmp_path, ended):
    argv = ["vehicle", "key", "configs/vehicle.yaml", "--set", f"vehicle.state={tmp_path}"]
    first, (status, out, err) = fleetfl(*argv), ended(*argv)
    assert (first.returncode, first.stderr) == (status, err) == (0, "")
    assert first.stdout.startswith("ssh-ed25519 AAAA")
    assert first.stdout.endswith(" drone-01\n")
    assert first.stdout == out


def test_codec_inspect_checks_the_signature_and_unpacks_the_body(tmp_path, make_update, ended):
    layout = Layout((("w", (5,)),))
    write_adapter(tmp_path / "adapter.safetensors", layout, np.zeros(5, np.float32))
    signer = Signer("f", Ed25519PrivateKey.generate())
    signer.write_public("v1", tmp_path / "keys")
    update = make_update(np.float32([3, 0, -4, 0, 0]), layout=layout.fingerprint)
    (tmp_path / "frame.bin").write_bytes(wire.encode(update, signer))
    argv = ["codec", "inspect", str(tmp_path / "frame.bin"), "--keys", str(tmp_path / "keys")]
    argv += ["--fleet", "f", "--adapter", str(tmp_path / "adapter.safetensors")]
    about = json.loads(ended(*argv, "--json")[1])
    assert (about["kind"], about["signature"], about["values"]["norm"]) == ("Update", "valid", 5)
    _, said, _ = ended(*argv)
    assert 'signature       "valid"' in said
    assert "norm            5" in said


def test_a_vehicle_that_is_asked_for_the_server_says_what_to_install():
    code = "import sys; sys.modules['fastapi'] = None; from fleetfl.cli import main; main(['demo'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert 'needs fastapi, which is not here: pip install "fleetfl[all]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_option_is_a_usage_error():
    done = fleetfl("demo", "--fast")
    assert done.returncode == 2
    assert "--fast" in done.stderr


def test_a_folder_with_other_peoples_files_is_left_alone(tmp_path, ended):
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart" / "thesis.tex").write_text("mine")
    status, _, err = ended("demo", "--set", f"sim.runs={tmp_path}")
    assert status == 1
    assert "thesis.tex" in err
    assert (tmp_path / "quickstart" / "thesis.tex").read_text() == "mine"


def test_doctor_finds_this_installation_sound(ended):
    status, out, _ = ended("doctor")
    assert status == 0
    for part in ("core", "agent", "server", "sim", "fleet_vit weights"):
        assert part in out


def test_doctor_says_that_a_broker_does_not_answer(tmp_path, ended):
    import socket

    with socket.socket() as bound:  # bound and not listening: nobody can answer
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        file = tmp_path / "f.yaml"
        file.write_text(f"transport: {{kind: mqtt, port: {port}}}\n")
        status, out, _ = ended("doctor", str(file))
    assert status == 1
    assert str(port) in out
