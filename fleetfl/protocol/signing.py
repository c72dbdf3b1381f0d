"""Signs frames and checks signatures: Ed25519 keys in files. Knows no message's content and no broker.

A private key is a PEM file (PKCS8) of its own; a public key is one line, as OpenSSH writes it, in
`NAME.pub`. A signature covers the fleet's name, so that a frame proves nothing in another fleet, and the
frame's SHA-256.
"""

import contextlib
import os
import re
import secrets
import time
from hashlib import sha256
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_public_key,
)
from pydantic import Field

from fleetfl import FleetflError
from fleetfl.config import Section
from fleetfl.plain_files import content_of
from fleetfl.protocol.messages import VEHICLE_PATTERN

MAX_BYTES = 65_536
"""Largest file of a key, bytes."""
COUNT_EVERY_S = 5.0
"""Least time, seconds, between two counts of the keys in a folder."""


class IdentityError(FleetflError, ValueError):
    """A key file that cannot be used; names it and what was expected."""


UNLISTED, REVOKED, CHANGED = "is not listed", "is revoked", "CHANGED ITS KEY"


def for_the_named(objection: str) -> str:
    """An objection in words for the vehicle itself, without the server's paths and keys."""
    for sign, words in (
        (REVOKED, "its key was revoked"),
        (UNLISTED, "it is not listed"),
        (CHANGED, "another key is known for its name"),
        ("is unknown", "no status with its key has come yet"),
    ):
        if sign in objection:
            return words
    return "it does not fit the key that is known for its name"


class KeysConfig(Section):
    """Settings of the keys whose signatures are accepted."""

    policy: Literal["off", "listed", "first_use"] = "first_use"
    """Keys to accept. `listed`: those whose NAME.pub is in the folder. `first_use`: the first key that a name
    signs with is noted there, and no other one after it. `off`: frames need no signature."""
    folder: Path | None = None
    """Folder of the public keys, one NAME.pub each; None is `keys` in the state folder."""
    max_keys: int = Field(default=10_000, ge=1)
    """Most names that `first_use` notes. A smaller number keeps strangers from filling the disk; it has to be
    larger than the fleet."""

    def build(self, fleet: str, state: Path) -> "Keyring | None":
        """The keyring, or None if frames need no signature. Raises IdentityError if listed keys are
        missing.
        """
        if self.policy == "off":
            return None
        first_use = self.policy == "first_use"
        return Keyring(
            fleet, self.folder or state / "keys", first_use=first_use, max_keys=self.max_keys
        )


class Signer:
    """Signs frames with one private key, for one fleet."""

    def __init__(self, fleet: str, key: Ed25519PrivateKey) -> None:
        self.fleet, self.key = fleet, key
        self.public = key.public_key().public_bytes_raw()
        """The public key, 32 bytes."""

    @classmethod
    def from_file(cls, fleet: str, path: Path) -> "Signer":
        """A signer with the key in `path`, which is made (mode 0600) if it is missing. Raises
        IdentityError.
        """
        if not path.exists():
            _write(path, _pem(Ed25519PrivateKey.generate()), mode=0o600, over=False)
        try:
            key = load_pem_private_key(content_of(path, max_bytes=MAX_BYTES), password=None)
        except Exception as unfit:  # whatever OpenSSL and its binding raise
            raise IdentityError(f"key file {path} is not a private key in PEM: {unfit}") from unfit
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(f"key file {path} holds {type(key).__name__}, expected Ed25519")
        return cls(fleet, key)

    def sign(self, frame: bytes) -> bytes:
        """Signature of the fleet's name and the frame, 64 bytes."""
        return self.key.sign(_covered(self.fleet, frame))

    def objection(self, name: str, frame: bytes, signature: bytes, *, offered: bytes = b"") -> str:
        """Why the frame was not signed with this key; empty if it was. It makes this a wire.Verifier as
        well.
        """
        if is_signed(self.fleet, frame, signature, self.key.public_key()):
            return ""
        return f"{name}: the signature is not of this key"

    def public_line(self, name: str) -> str:
        """The public key as the line of NAME.pub."""
        return _line(self.public, name)

    def write_public(self, name: str, folder: Path) -> None:
        """Write NAME.pub, over an old one. Raises IdentityError."""
        line = self.public_line(name).encode() + b"\n"
        _write(folder / f"{name}.pub", line, mode=0o644, over=True)


class Keyring:
    """The public keys of a folder, NAME.pub each, by which frames are verified. A wire.Verifier.

    A file that is added, replaced or removed counts from the next frame on. Raises IdentityError if
    the folder is missing, which a keyring that notes first uses makes.
    """

    def __init__(
        self, fleet: str, folder: Path, *, first_use: bool = False, max_keys: int = 10_000
    ) -> None:
        if first_use:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            raise IdentityError(f"folder of keys {folder} is missing")
        self.fleet, self.folder, self.first_use, self.max_keys = fleet, folder, first_use, max_keys
        self.loaded: dict[str, tuple[int, Ed25519PublicKey]] = {}
        """Modification time of the file, ns, and the key in it, by name."""
        self.revoked: set[str] = set()
        """Names whose key file was removed while this keyring was in use."""
        self.num_noted, self.counted_ns, self.count_again_s = 0, -1, 0.0

    def objection(self, name: str, frame: bytes, signature: bytes, *, offered: bytes = b"") -> str:
        """Why this is not a frame of `name`; empty if it is. The key `offered` may be noted as the name's."""
        if (
            re.match(VEHICLE_PATTERN, name) is None
        ):  # it comes from a topic, and becomes a file's name
            return f"{name!r:.80} is no name of a vehicle"
        path = self.folder / f"{name}.pub"
        try:
            key = self._key(name, path)
            if key is None:
                return self._first_use(name, path, frame, signature, offered)
        except Exception as unfit:  # whatever a name, a file or a key is: nobody is believed for it
            return f"{name}: {unfit}"
        if is_signed(self.fleet, frame, signature, key):
            return ""
        if offered and offered != key.public_bytes_raw():
            return f"{name} {CHANGED}: it signs with another one than {path} has"
        return f"{name}: the signature does not fit the frame and the key in {path}"

    def names(self) -> list[str]:
        """Sorted names of the vehicles with a key."""
        found = sorted(path.stem for path in self.folder.glob("*.pub"))
        return [name for name in found if re.match(VEHICLE_PATTERN, name)]

    def _key(self, name: str, path: Path) -> Ed25519PublicKey | None:
        try:
            changed_ns = path.stat().st_mtime_ns
        except FileNotFoundError:
            if self.loaded.pop(name, None) is not None:
                self.revoked.add(name)
            return None
        self.revoked.discard(name)
        known = self.loaded.get(name)
        if known is None or known[0] != changed_ns:
            known = self.loaded[name] = (changed_ns, _read_line(path))
        return known[1]

    def _num_keys(self) -> int:
        """Number of keys in the folder, counted again only if another process has changed the folder."""
        changed_ns = self.folder.stat().st_mtime_ns
        is_full = self.num_noted >= self.max_keys
        if changed_ns != self.counted_ns and (is_full or time.monotonic() >= self.count_again_s):
            with os.scandir(self.folder) as entries:
                self.num_noted = sum(entry.name.endswith(".pub") for entry in entries)
            self.counted_ns, self.count_again_s = changed_ns, time.monotonic() + COUNT_EVERY_S
        return self.num_noted

    def _first_use(
        self, name: str, path: Path, frame: bytes, signature: bytes, offered: bytes
    ) -> str:
        if not self.first_use:
            was_there = name in self.revoked
            return f"{name} {f'{REVOKED}: removed was' if was_there else f'{UNLISTED}: there is no'} {path}"
        if len(offered) != 32:
            return f"{name} is unknown, and no status with its key came before this"
        key = Ed25519PublicKey.from_public_bytes(offered)
        if is_weak(offered) or not is_signed(self.fleet, frame, signature, key):
            return f"{name}: the signature does not fit the frame and the key that it offers"
        if self._num_keys() >= self.max_keys:
            return f"{name} is one too many: {self.folder} has {self.max_keys} keys (max_keys)"
        _write(path, _line(offered, name).encode() + b"\n", mode=0o644, over=False)
        self.num_noted += 1
        # Another process may have been first.
        if _read_line(path).public_bytes_raw() != offered:
            return f"{name} {CHANGED}: it signs with another one than {path} has"
        return ""


class OneKey:
    """One public key, whatever name signs with it: a vehicle's view of its server. A wire.Verifier."""

    def __init__(self, fleet: str, path: Path) -> None:
        """Read the key in `path`. Raises IdentityError."""
        self.fleet, self.path, self.key = fleet, path, _read_line(path)

    def objection(self, name: str, frame: bytes, signature: bytes, *, offered: bytes = b"") -> str:
        """Why this is not a frame of the key's holder; empty if it is."""
        if is_signed(self.fleet, frame, signature, self.key):
            return ""
        return f"{name}: the signature does not fit the frame and the key in {self.path}"


FIELD = 2**255 - 19
_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
WEAK = frozenset((0, 1, FIELD - 1, _ORDER_8, FIELD - _ORDER_8))
"""The y of the eight points of Curve25519 whose order divides 8: order 4, 1, 2 and, with either sign, 8."""


def is_weak(public: bytes) -> bool:
    """Whether the public key has no private half, while there are signatures that fit it and any frame.

    The eight points of small order are such keys. OpenSSL takes them, in several spellings (y and y + p, and
    a sign where x is 0): any spelling that no key pair has is refused with them.
    """
    y = int.from_bytes(public, "little") & (2**255 - 1)
    return len(public) != 32 or y >= FIELD or y in WEAK


def is_signed(fleet: str, frame: bytes, signature: bytes, key: Ed25519PublicKey) -> bool:
    """Whether the signature is `key`'s, over this fleet and frame."""
    try:
        key.verify(signature, _covered(fleet, frame))
    except InvalidSignature:
        return False
    return True


def _covered(fleet: str, frame: bytes) -> bytes:
    # Names of fleets hold no NUL, so no two pairs give the same bytes. Ed25519 by itself would read
    # the frame with SHA-512, which takes three times as long where SHA-256 is an instruction.
    return b"fleetfl\0" + fleet.encode() + b"\0" + sha256(frame).digest()


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _line(public: bytes, name: str) -> str:
    key = Ed25519PublicKey.from_public_bytes(public)
    return f"{key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {name}"


def _read_line(path: Path) -> Ed25519PublicKey:
    """The public key in a NAME.pub. Raises IdentityError."""
    try:
        key = load_ssh_public_key(content_of(path, max_bytes=MAX_BYTES))
    except FileNotFoundError as missing:
        raise IdentityError(f"key file {path} is not there") from missing
    except Exception as unfit:  # as above
        raise IdentityError(
            f"key file {path} is not a line `ssh-ed25519 KEY NAME`: {unfit}"
        ) from unfit
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError(f"key file {path} holds {type(key).__name__}, expected Ed25519")
    if is_weak(key.public_bytes_raw()):
        raise IdentityError(f"key file {path} holds a key that anybody can sign for")
    return key


def _write(path: Path, content: bytes, *, mode: int, over: bool) -> None:
    """Write the file whole or not at all; an existing one stays unless `over`. Raises IdentityError."""
    half_written = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(half_written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            try:
                os.write(file, content)
                os.fsync(file)
            finally:
                os.close(file)
            if over:
                half_written.replace(path)
            else:
                with contextlib.suppress(FileExistsError):
                    os.link(half_written, path)
        finally:
            half_written.unlink(missing_ok=True)
    except OSError as unwritable:
        raise IdentityError(f"key file {path} cannot be written: {unwritable}") from unwritable
