"""Keys in files, and who is believed."""

import base64
import os
import stat
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from fleetfl.protocol import wire
from fleetfl.protocol.messages import Status
from fleetfl.protocol.signing import (
    WEAK,
    IdentityError,
    Keyring,
    OneKey,
    Signer,
    is_signed,
    is_weak,
)

pytestmark = pytest.mark.unit
FRAME = b"a frame"


def signer(number=1, fleet="f"):
    return Signer(fleet, Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def listed(folder, **signers):
    for name, one in signers.items():
        (folder / f"{name}.pub").write_text(one.public_line(name) + "\n")
    return Keyring("f", folder)


def objection(keyring, name, one, *, offered=b""):
    return keyring.objection(name, FRAME, one.sign(FRAME), offered=offered)


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "deep" / "key.pem"
    first = Signer.from_file("f", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Signer.from_file("f", path).public == first.public
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert os.listdir(path.parent) == ["key.pem"]


def test_processes_that_make_the_key_at_once_end_up_with_the_same(tmp_path):
    keys, together = [], threading.Barrier(8)

    def make():
        together.wait()
        keys.append(Signer.from_file("f", tmp_path / "key.pem").public)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 1


def test_a_key_file_that_is_something_else_is_named(tmp_path):
    path = tmp_path / "key.pem"
    for content in (
        b"",
        b"junk",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ):
        path.write_bytes(content)
        with pytest.raises(IdentityError, match=r"key\.pem is not a private key"):
            Signer.from_file("f", path)
    other = Ed448PrivateKey.generate()
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(IdentityError, match=f"holds {type(other).__name__}, expected Ed25519"):
        Signer.from_file("f", path)
    locked = BestAvailableEncryption(b"secret")
    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    )
    with pytest.raises(IdentityError, match="not a private key"):
        Signer.from_file("f", path)


def test_a_public_key_that_is_not_there_is_not_said_to_be_malformed(tmp_path):
    with pytest.raises(IdentityError, match=r"server\.pub is not there$"):
        OneKey("f", tmp_path / "server.pub")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityError, match=r"key\.pem cannot be written"):
        Signer.from_file("f", tmp_path / "file" / "key.pem")


def test_the_public_line_is_one_that_openssh_reads():
    line = signer().public_line("drone-01")
    assert line.startswith("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI")
    assert line.endswith(" drone-01")
    assert "\n" not in line


def test_listed_names_are_believed_and_no_others(tmp_path):
    keyring = listed(tmp_path, v1=signer(1), v2=signer(2))
    assert objection(keyring, "v1", signer(1)) == ""
    assert objection(keyring, "v2", signer(2)) == ""
    assert "v1: the signature does not fit" in objection(keyring, "v1", signer(2))
    stranger = objection(keyring, "v3", signer(3), offered=signer(3).public)
    assert stranger == f"v3 is not listed: there is no {tmp_path / 'v3.pub'}"


def test_a_signature_is_worth_nothing_in_another_fleet(tmp_path):
    keyring = listed(tmp_path, v1=signer(1))
    assert "does not fit" in objection(keyring, "v1", signer(1, fleet="g"))


def test_a_missing_folder_of_listed_keys_is_an_error(tmp_path):
    with pytest.raises(IdentityError, match="gone is missing"):
        Keyring("f", tmp_path / "gone")


def test_the_first_key_is_noted_and_another_one_refused(tmp_path):
    keyring = Keyring("f", tmp_path / "keys", first_use=True)
    assert objection(keyring, "v1", signer(1)) == (
        "v1 is unknown, and no status with its key came before this"
    )
    assert objection(keyring, "v1", signer(1), offered=signer(1).public) == ""
    assert (tmp_path / "keys/v1.pub").read_text() == signer(1).public_line("v1") + "\n"
    assert objection(keyring, "v1", signer(1)) == ""
    changed = objection(keyring, "v1", signer(2), offered=signer(2).public)
    assert changed.startswith("v1 CHANGED ITS KEY")
    # What was noted outlives the process.
    again = Keyring("f", tmp_path / "keys", first_use=True)
    assert objection(again, "v1", signer(1)) == ""
    assert "CHANGED" in objection(again, "v1", signer(2), offered=signer(2).public)


def test_a_key_is_noted_only_from_who_holds_it(tmp_path):
    keyring = Keyring("f", tmp_path, first_use=True)
    assert "does not fit" in objection(keyring, "v1", signer(2), offered=signer(1).public)
    assert "31 bytes" not in objection(keyring, "v1", signer(1), offered=bytes(31))
    assert objection(keyring, "v1", signer(1), offered=bytes(31)) != ""
    assert not list(tmp_path.iterdir())


def test_two_that_claim_a_name_at_once_are_not_both_believed(tmp_path):
    rings = [Keyring("f", tmp_path, first_use=True) for _ in range(8)]
    together, said = threading.Barrier(8), {}

    def claim(number):
        one = signer(number + 1)
        together.wait()
        said[number] = objection(rings[number], "v1", one, offered=one.public)

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bool(text) for text in said.values()) == [False] + [True] * 7


def test_strangers_cannot_fill_the_folder(tmp_path):
    keyring = Keyring("f", tmp_path, first_use=True, max_keys=2)
    said = [objection(keyring, f"v{n}", signer(n), offered=signer(n).public) for n in (1, 2, 3)]
    assert said[:2] == ["", ""]
    assert "v3 is one too many" in said[2]


def test_files_that_are_replaced_or_removed_count_at_once(tmp_path):
    keyring = listed(tmp_path, v1=signer(1))
    assert objection(keyring, "v1", signer(1)) == ""
    (tmp_path / "v1.pub").write_text(signer(2).public_line("v1"))
    os.utime(tmp_path / "v1.pub", ns=(1, 1))
    assert objection(keyring, "v1", signer(2)) == ""
    assert "does not fit" in objection(keyring, "v1", signer(1))
    (tmp_path / "v1.pub").unlink()
    assert "is revoked" in objection(keyring, "v1", signer(2))
    (tmp_path / "v1.pub").write_text(signer(1).public_line("v1"))
    assert objection(keyring, "v1", signer(1)) == ""


def test_a_public_key_file_that_is_something_else_is_named_and_nobody_believed(tmp_path):
    keyring = listed(tmp_path, v1=signer(1))
    for content in ("", "junk", "ssh-rsa AAAA v1", signer(1).public_line("v1")[:40]):
        (tmp_path / "v1.pub").write_text(content)
        os.utime(tmp_path / "v1.pub", ns=(len(content), len(content)))
        assert "v1.pub is not a line `ssh-ed25519" in objection(keyring, "v1", signer(1))
        with pytest.raises(IdentityError, match=r"v1\.pub is not a line"):
            OneKey("f", tmp_path / "v1.pub")


def test_a_vehicle_believes_the_one_key_of_its_server(tmp_path):
    (tmp_path / "server.pub").write_text(signer(9).public_line("server"))
    key = OneKey("f", tmp_path / "server.pub")
    assert objection(key, "server", signer(9)) == ""
    assert "does not fit" in objection(key, "server", signer(1))


def test_a_status_introduces_its_vehicle(tmp_path):
    """The whole way through the wire format."""
    one, keyring = signer(1), Keyring("f", tmp_path, first_use=True)
    status = Status("v1", "b", "online", -1, 0, 0, 0, "", key=one.public)
    assert wire.decode(wire.encode(status, one), keyring) == status
    other = signer(2)
    with pytest.raises(wire.SignatureError, match="v1 CHANGED ITS KEY"):
        wire.decode(wire.encode(msg(status, other), other), keyring)


def msg(status, one):
    return Status(status.vehicle, "c", "online", -1, 0, 0, 0, "", key=one.public)


P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def plus(one, other):
    """The sum of two points of Curve25519 in Edwards' form (RFC 8032)."""
    (x1, y1), (x2, y2) = one, other
    both = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + both, -1, P)
    return x % P, (y1 * y2 + x1 * x2) * pow(1 - both, -1, P) % P


def with_y(y):
    """The points with this y."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    if root * root % P != square:
        root = root * pow(2, (P - 1) // 4, P) % P
    assert root * root % P == square
    return {(root, y), (-root % P, y)}


def small_points():
    found = {point for y in WEAK for point in with_y(y)}
    for point in found:
        eightfold = point
        for _ in range(3):
            eightfold = plus(eightfold, eightfold)
        assert eightfold == (0, 1)
    assert len(found) == 8
    return found


def spellings(point):
    """Every 32 bytes that a lax reader takes for the point."""
    x, y = point
    for number in (y, y + P):
        for sign in {x & 1, 0, 1} if x == 0 else {x & 1}:
            if number < 2**255:
                yield (number | sign << 255).to_bytes(32, "little")


def forged(fleet, frame, public):
    """A signature that fits a weak key for this frame, made without any secret.

    S = 0 and R one of the eight points: it fits if R = -hA, which a few tries find.
    """
    weak = [spelt for point in small_points() for spelt in spellings(point)]
    key = Ed25519PublicKey.from_public_bytes(public)
    tries = (r + bytes(32) for r in weak)
    return next((s for s in tries if is_signed(fleet, frame, s, key)), None)


def test_keys_that_anybody_can_sign_for_are_refused_in_files_and_at_first_use(tmp_path):
    weak = {spelt for point in small_points() for spelt in spellings(point)}
    assert len(weak) >= 12
    keyring = Keyring("f", tmp_path / "keys", first_use=True)
    num_forged = 0
    for number, public in enumerate(sorted(weak)):
        assert is_weak(public)
        signature = forged("f", FRAME, public)
        num_forged += signature is not None
        said = keyring.objection(f"v{number}", FRAME, signature or bytes(64), offered=public)
        assert "does not fit" in said
        line = b"\0\0\0\x0bssh-ed25519\0\0\0 " + public
        path = tmp_path / "keys" / f"w{number}.pub"
        path.write_text(f"ssh-ed25519 {base64.b64encode(line).decode()} w\n")
        assert "anybody can sign" in keyring.objection(f"w{number}", FRAME, signature or bytes(64))
        with pytest.raises(IdentityError, match="anybody can sign"):
            OneKey("f", path)
    assert num_forged  # it was a real danger


def test_keys_of_pairs_are_not_weak():
    assert not any(is_weak(signer(n).public) for n in range(200))


@pytest.mark.parametrize("name", ["", "x" * 5000, "../v1", "a/b", "v\0", "v1\n", ".", "v1.pub"])
def test_a_name_that_no_vehicle_can_have_is_no_file(tmp_path, name):
    keyring = Keyring("f", tmp_path, first_use=True)
    assert "no name of a vehicle" in objection(keyring, name, signer(1), offered=signer(1).public)
    assert not list(tmp_path.iterdir())


def test_the_folder_is_not_listed_for_each_key_that_is_noted(tmp_path, monkeypatch):
    listings, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listings.append(path), scandir(path))[1])
    keyring = Keyring("f", tmp_path, first_use=True, max_keys=60)
    said = [objection(keyring, f"v{n}", signer(n), offered=signer(n).public) for n in range(100)]
    assert said[:60] == [""] * 60
    assert all("one too many" in each for each in said[60:])
    assert len(listings) <= 4
    (tmp_path / "v7.pub").unlink()
    assert objection(keyring, "v70", signer(70), offered=signer(70).public) == ""
