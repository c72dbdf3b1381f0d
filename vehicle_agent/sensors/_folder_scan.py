"""The pictures below a folder and what each is labelled, by names and kinds alone: no file is opened.

Names are bytes, as the disk has them, in any encoding. A million pictures take some 40 MB.
"""

import difflib
import os
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

SUFFIXES = {b".jpg", b".jpeg", b".jpe", b".jfif", b".png", b".webp", b".bmp"}
FOREIGN = {b".gif", b".tif", b".tiff", b".heic", b".heif", b".avif", b".jxl", b".jp2", b".dng"}
"""Pictures too, in formats that are not read."""
MAX_DEPTH = 8
MAX_FILES = 2_000_000
MAX_STRANGERS = 5
"""Folders without a class that are named; the others are only counted."""


@dataclass(eq=False)
class Catalogue:
    """Pictures by number, in an order that only their names decide."""

    folders: list[bytes] = field(default_factory=list)
    places: "array[int]" = field(default_factory=lambda: array("I"))
    """Each picture's folder."""
    labels: "array[int]" = field(default_factory=lambda: array("i"))
    names: bytearray = field(default_factory=bytearray)
    """All names, one after the other."""
    ends: "array[int]" = field(default_factory=lambda: array("Q"))
    """Where each name ends."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """Why, and how many."""
    strangers: list[str] = field(default_factory=list)
    """Folders with pictures and without a class, with a guess at what was meant."""
    is_there: bool = True
    """The root is a folder that can be read."""

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[bytes, int]:
        """Path and label."""
        begin = self.ends[number - 1] if number else 0
        name = bytes(self.names[begin : self.ends[number]])
        return os.path.join(self.folders[self.places[number]], name), self.labels[number]

    def lists_as(self, other: "Catalogue") -> bool:
        """Both list the same pictures, in the same order."""
        return (
            self.ends == other.ends
            and self.names == other.names
            and self.places == other.places
            and self.labels == other.labels
            and self.folders == other.folders
        )

    def add(self, folder: bytes, names: Iterable[bytes], label: int) -> None:
        self.folders.append(folder)
        for name in names:
            self.names += name
            self.ends.append(len(self.names))
            self.places.append(len(self.folders) - 1)
            self.labels.append(label)


def scan(root: str | os.PathLike[str], classes: tuple[str, ...]) -> Catalogue:
    """Every picture below a folder that is named as a class, whatever the case of its letters.

    Such a folder may lie deeper (ROOT/train/car) and hold others; of two, the inner one says the class.
    """
    found = Catalogue()
    known = _known(classes)
    by_label: list[tuple[int, bytes, list[bytes]]] = []
    seen: set[tuple[int, int]] = set()
    todo: list[tuple[bytes, int | None, int]] = [(os.fsencode(root), None, 0)]
    num_files = 0
    while todo:
        folder, label, depth = todo.pop()
        try:
            about = os.stat(folder)
            if (about.st_dev, about.st_ino) in seen:  # a link back up
                continue
            seen.add((about.st_dev, about.st_ino))
            pictures, inner = _sorted_out(folder, found.passed_over)
        except OSError:
            found.is_there = depth > 0
            found.passed_over["in folders that cannot be read"] += 1
            continue
        if depth < MAX_DEPTH:
            todo += [
                (os.path.join(folder, name), _label(name, known, label), depth + 1)
                for name in inner
            ]
        if pictures and label is None:
            found.passed_over["in no folder of a class"] += len(pictures)
            _note_stranger(found, folder, root, known)
        elif pictures and label is not None:
            room = max(0, MAX_FILES - num_files)
            if len(pictures) > room:
                found.passed_over[f"over {MAX_FILES}"] += len(pictures) - room
            pictures = sorted(pictures)[:room]
            num_files += len(pictures)
            by_label.append((label, folder, pictures))
    for label, folder, pictures in sorted(by_label, key=lambda each: each[:2]):
        found.add(folder, pictures, label)
    return found


def _sorted_out(folder: bytes, passed_over: Counter[str]) -> tuple[list[bytes], list[bytes]]:
    """Names of the pictures in it, and of the folders. Raises OSError."""
    pictures, inner = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            why = _why_not(entry)
            if why is None:
                pictures.append(entry.name)
            elif why == "folder":
                inner.append(entry.name)
            elif why:
                passed_over[why] += 1
    return pictures, inner


def _why_not(entry: os.DirEntry[bytes]) -> str | None:
    """None for a picture; "folder", "" for what is none of ours, or why a picture is passed over."""
    name = entry.name
    suffix = os.path.splitext(name)[1].lower()
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError:
        is_folder = is_file = False
    if suffix not in SUFFIXES:
        if is_folder:
            return "" if name.startswith(b".") or name == b"__MACOSX" else "folder"
        return "of a format that is not read" if suffix in FOREIGN else ""
    if name.startswith(b"."):
        return "AppleDouble" if name.startswith(b"._") else "hidden"
    if is_file:
        return None
    return "links to nothing" if entry.is_symlink() and not is_folder else "no plain files"


def _note_stranger(
    found: Catalogue, folder: bytes, root: str | os.PathLike[str], known: dict[str, int]
) -> None:
    if len(found.strangers) >= MAX_STRANGERS:
        return
    name = os.path.relpath(folder, os.fsencode(root))
    near = difflib.get_close_matches(_plain(os.path.basename(name)), known, 1)
    found.strangers.append(shown(name) + (f" ({near[0]}?)" if near else ""))


def _label(name: bytes, known: dict[str, int], outer: int | None) -> int | None:
    return known.get(os.fsdecode(name), known.get(_plain(name), outer))


def _known(classes: tuple[str, ...]) -> dict[str, int]:
    """Labels by the name as `_plain` has it; classes that differ in case only keep their own spelling."""
    spellings = Counter(_plain(name) for name in classes)
    both: Iterator[tuple[str, int]] = (
        (_plain(name) if spellings[_plain(name)] == 1 else name, label)
        for label, name in enumerate(classes)
    )
    return dict(both)


def _plain(name: bytes | str) -> str:
    """Upper case and the ways to spell an accent make no difference."""
    return unicodedata.normalize("NFC", os.fsdecode(name)).casefold()


def shown(name: bytes | str) -> str:
    """A name as it may be logged and sent: bytes that are no UTF-8 as escapes."""
    return os.fsdecode(name).encode("utf-8", "backslashreplace").decode()
