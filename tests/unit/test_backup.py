"""A backup of a state folder in use holds all that was promised by then, and is put back whole or not."""

import asyncio
import json
import stat
import tarfile

import pytest
from typer.testing import CliRunner

from actors.aggregator import AggregatorActor
from fleetfl.cli import app
from fleetfl.protocol import wire
from fleetfl.protocol.messages import SERVER
from fleetfl.protocol.signing import Signer
from fleetfl.releases.generations import number_of, order_of
from fleetfl.storage import backup
from fleetfl.storage.backup import BackupError, make, restore
from fleetfl.storage.journal import Journal
from tests.unit.test_recovery import ask, config_in, end, keep, told, unbroken, updates

pytestmark = pytest.mark.unit
__all__ = ["updates"]


@pytest.fixture
def config(tmp_path):
    return begun(tmp_path)


def begun(tmp_path, **settings):
    folder = tmp_path / "server"
    folder.mkdir()
    config = config_in(folder, checkpoint_s=3600, **settings)
    Signer.from_file(config.fleet, folder / "key.pem").write_public(SERVER, folder)
    (folder / "keys").mkdir()
    (folder / "keys" / "v1.pub").write_text("ssh-ed25519 AAAA v1\n")
    (folder / "events.jsonl").write_text("{}\n")
    return config


def elsewhere(config, folder):
    return config.model_copy(update={"state": folder})


@pytest.mark.parametrize("name", ["copy", "copy.tar", "copy.tar.gz"])
def test_what_was_kept_before_the_backup_is_there_after_a_restore(tmp_path, config, updates, name):
    """Some of it counted, some in a checkpoint, some in the journal alone; more comes while it runs."""
    server = AggregatorActor(config)
    ask(server, *keep(server.journal, updates[:7]))
    server.state.keep()
    ask(server, *keep(server.journal, updates[7:9]))
    keep(server.journal, updates[9:11])
    made = make(config.state, tmp_path / "backups" / name)
    ask(server, *keep(server.journal, updates[11:]))
    assert (made.counted_row, made.newest_row, made.version) == (7, 11, 2)
    assert made.settings == server.state.registrar.fingerprint
    there = elsewhere(config, tmp_path / "other" / "host")
    assert restore(tmp_path / "backups" / name, there.state) == made
    second = AggregatorActor(there)
    assert end(second.coordinator) == unbroken(config, updates[:11])
    assert number_of(second.snapshot.generation) == 2
    assert order_of(second.snapshot) > order_of(server.snapshot)
    (began,) = told(there, "generation_began")
    assert "restored from a backup" in began["why"]
    outcomes = ask(second, *keep(second.journal, updates))
    assert [o.verdict for o in outcomes[:5]] == ["duplicate"] * 5
    assert {o.verdict for o in outcomes[11:]} == {"accepted"}
    assert there.releases.find(f"{made.generation}/2").record.row == 7
    assert (there.state / "keys" / "v1.pub").is_file()
    assert Signer.from_file("f", there.state / "key.pem").public == (
        Signer.from_file("f", config.state / "key.pem").public
    )


def test_the_key_is_for_its_owner_alone_and_the_diary_is_left_out(tmp_path, config):
    AggregatorActor(config)
    for into in (tmp_path / "copy", tmp_path / "copy.tar"):
        make(config.state, into)
    assert stat.S_IMODE((tmp_path / "copy.tar").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o700
    restore(tmp_path / "copy.tar", tmp_path / "there")
    for folder in (tmp_path / "copy" / "state", tmp_path / "there"):
        assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
        assert not (folder / "events.jsonl").exists()


def test_a_backup_begins_again_where_rows_were_trimmed_behind_its_checkpoint(
    tmp_path, updates, monkeypatch
):
    config = begun(tmp_path, journal={"keep_s": 0})
    server = AggregatorActor(config)
    ask(server, *keep(server.journal, updates[:2]))
    copy_others, rounds = backup._copy_others, []

    def busy(state, copy):
        copy_others(state, copy)
        rounds.append(1)
        if len(rounds) == 1:  # two checkpoints, and all before them is trimmed
            for one in updates[2:8]:
                ask(server, *keep(server.journal, [one]))
                server.saving._save(server.counted, server.state.values())

    monkeypatch.setattr(backup, "_copy_others", busy)
    made = make(config.state, tmp_path / "copy")
    assert len(rounds) == 2
    assert made.counted_row == 8
    restore(tmp_path / "copy", tmp_path / "there")
    again = AggregatorActor(elsewhere(config, tmp_path / "there"))
    assert end(again.coordinator) == end(server.coordinator)
    assert told(again.config, "journal_rows_missing") == []


def test_a_backup_while_updates_come_has_a_whole_beginning_of_them(tmp_path, config, updates):
    server = AggregatorActor(config)
    gateway = Journal(config.journal_path)

    async def scene():
        appended = []

        async def append():
            for one in updates:
                appended.append((await gateway.append(one, wire.encode(one))).row)
                await asyncio.sleep(0.002)

        task = asyncio.create_task(append())
        await asyncio.sleep(0.004)
        before = len(appended)
        made = await asyncio.to_thread(make, config.state, tmp_path / "copy")
        await task
        return before, made

    before, made = asyncio.run(scene())
    assert before <= made.newest_row
    restore(tmp_path / "copy", tmp_path / "there")
    again = AggregatorActor(elsewhere(config, tmp_path / "there"))
    assert again.counted == made.newest_row
    assert end(again.coordinator) == unbroken(config, updates[: made.newest_row])
    server.journal.close()


@pytest.mark.parametrize("what", ["flipped", "missing", "added", "manifest", "format", "outside"])
def test_a_backup_that_is_not_as_it_was_made_is_not_put_back(tmp_path, config, what):
    AggregatorActor(config)
    folder = tmp_path / "copy"
    make(config.state, folder)
    file, manifest = folder / "state" / "keys" / "v1.pub", folder / "manifest.json"
    about = json.loads(manifest.read_bytes())
    if what == "flipped":
        file.write_bytes(file.read_bytes()[:-2] + b"!\n")
    elif what == "missing":
        file.unlink()
    elif what == "added":
        with tarfile.open(tmp_path / "more.tar", "w") as tar:
            tar.add(folder / "manifest.json", arcname="manifest.json")
            tar.add(folder / "state", arcname="state")
            tar.add(file, arcname="state/keys/mallory.pub")
        folder = tmp_path / "more.tar"
    elif what == "manifest":
        manifest.write_bytes(b"[" * 100_000)
    elif what == "format":
        manifest.write_text(json.dumps({**about, "format": 2}))
    else:
        about["files"]["../../escaped"] = about["files"]["keys/v1.pub"]
        manifest.write_text(json.dumps(about))
    with pytest.raises(
        BackupError, match=r"DAMAGED|lacks|knows nothing|cannot be read|format 2|outside"
    ):
        restore(folder, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_nothing_that_is_there_is_overwritten(tmp_path, config):
    AggregatorActor(config)
    make(config.state, tmp_path / "copy")
    with pytest.raises(BackupError, match="is there already"):
        make(config.state, tmp_path / "copy")
    with pytest.raises(BackupError, match="is not empty"):
        restore(tmp_path / "copy", config.state)
    with pytest.raises(BackupError, match="is not the state folder of a server"):
        make(tmp_path, tmp_path / "more")
    with pytest.raises(BackupError, match="is not there"):
        restore(tmp_path / "nothing", tmp_path / "there")
    with pytest.raises(BackupError, match=r"has no manifest\.json"):
        restore(config.state, tmp_path / "there")
    (tmp_path / "junk.tar").write_bytes(b"junk")
    with pytest.raises(BackupError, match=r"junk\.tar"):
        restore(tmp_path / "junk.tar", tmp_path / "there")
    (tmp_path / "empty").mkdir()
    restore(tmp_path / "copy", tmp_path / "empty")


def test_a_file_that_is_no_archive_is_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("not a backup")
    with pytest.raises(BackupError) as refused:
        restore(tmp_path / "notes.txt", tmp_path / "there")
    assert "no backup of a server" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "there").exists()


def test_the_commands_say_what_they_did(tmp_path, config, updates):
    server = AggregatorActor(config)
    ask(server, *keep(server.journal, updates[:4]))
    run = CliRunner()
    words = ["server", "backup", str(tmp_path / "b.tar.gz"), "--state", str(config.state)]
    made = run.invoke(app, words)
    assert made.exit_code == 0, made.output
    assert "row 0 of 4 in the journal" in made.output
    assert "1 vehicles' keys" in made.output
    words = ["server", "restore", str(tmp_path / "b.tar.gz"), "--state", str(tmp_path / "there")]
    restored = run.invoke(app, words)
    assert restored.exit_code == 0
    assert f"--set server.state={tmp_path / 'there'}" in restored.output
    refused = run.invoke(app, words)
    assert refused.exit_code != 0
