"""Checksums of weight files, kept beside them so that gigabytes are hashed once.

The record of `x.pth` is `x.pth.sums.json`: size, modification time and checksums. While the file
has this size and time, the checksums are taken from there. For a file without a checksum in weights.lock.yaml, later
copies must equal the record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from specmaskfoley.storage.files import read_json, write_json
from specmaskfoley.weights.lock import LOCK_FILE, WeightFile

State = Literal["missing", "present", "verified", "wrong"]

_CHUNK = 1 << 20
_SHOWN_FROM = 1 << 26  # bytes; smaller files are hashed before a bar could be read


class WrongFileError(ValueError):
    """The file is not the one that was expected."""


@dataclass(frozen=True)
class Record:
    """Checksums of a file at one size and modification time."""

    size: int
    mtime_ns: int
    digests: dict[str, str]

    @property
    def sha256(self) -> str:
        return self.digests["sha256"]

    def describes(self, path: Path) -> bool:
        stat = path.stat()
        return (self.size, self.mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def record_path(path: Path) -> Path:
    return path.with_name(path.name + ".sums.json")


def recorded(path: Path) -> Record | None:
    """The record beside a file, which may be of an earlier version of the file.

    Raises:
        ValueError: the record is damaged.
    """
    source = record_path(path)
    if not source.exists():
        return None
    raw = read_json(source)
    try:
        record = Record(int(raw["size"]), int(raw["mtime_ns"]), {str(k): str(v) for k, v in raw["digests"].items()})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"{source}: not a record of checksums; delete it") from None
    if "sha256" not in record.digests:
        raise ValueError(f"{source}: records no sha256; delete it")
    return record


def remember(path: Path, entry: WeightFile, digests: dict[str, str]) -> Record:
    """Write the record of a file whose checksums are right."""
    stat = path.stat()
    record = Record(stat.st_size, stat.st_mtime_ns, digests)
    try:
        write_json(record_path(path), asdict(record))
    except OSError:
        # In a read-only folder the file is hashed every time. Only a file without a known checksum needs a record.
        if not entry.digests and not record_path(path).exists():
            raise
    return record


def hashes(path: Path, kinds: Iterable[str]) -> dict[str, str]:
    """Checksums of a file by kind (sha256, md5, git_sha1), read once, with a progress bar if it is large."""
    size = path.stat().st_size
    digests = {kind: hashlib.new(kind.removeprefix("git_"), usedforsecurity=kind == "sha256") for kind in kinds}
    if "git_sha1" in digests:
        digests["git_sha1"].update(b"blob %d\0" % size)
    hidden = True if size < _SHOWN_FROM else None  # None: hidden unless a person watches
    bar = tqdm(total=size, desc=f"checking {path.name}", unit="B", unit_scale=True, unit_divisor=1024, disable=hidden)
    with bar, path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            for digest in digests.values():
                digest.update(chunk)
            bar.update(len(chunk))
    return {kind: digest.hexdigest() for kind, digest in sorted(digests.items())}


def digests_of(path: Path, entry: WeightFile, known: Record | None) -> dict[str, str]:
    """The checksums of a file, after comparing them with those in the lock file or, if it has none, with the record.

    Raises:
        WrongFileError: naming the file, the expected and the found value.
    """
    _check_size(path, entry)
    digests = hashes(path, {"sha256", *entry.digests})
    _compare(path, entry, known, digests)
    return digests


def checked(path: Path, entry: WeightFile, *, anew: bool = False) -> Record:
    """The record of a file, after a check that it is the right one; hashed only if it has changed, or if `anew`.

    Raises:
        WrongFileError: naming the file, the expected and the found value.
    """
    known = recorded(path)
    if known is None or anew or not known.describes(path) or not set(entry.digests) <= set(known.digests):
        return remember(path, entry, digests_of(path, entry, known))
    _check_size(path, entry)
    _compare(path, entry, known, known.digests)
    return known


def state_of(path: Path, entry: WeightFile) -> State:
    """The state of a file, found without hashing it: `present` is there, but not checked yet."""
    if not path.exists():
        return "missing"
    known = recorded(path)
    try:
        _check_size(path, entry)
        if known is None or not known.describes(path) or not set(entry.digests) <= set(known.digests):
            return "present"
        _compare(path, entry, known, known.digests)
    except WrongFileError:
        return "wrong"
    return "verified"


def _check_size(path: Path, entry: WeightFile) -> None:
    found = path.stat().st_size
    if entry.size not in (None, found):
        raise WrongFileError(f"{path}: expected {entry.size} bytes ({LOCK_FILE}), found {found}")


def _compare(path: Path, entry: WeightFile, known: Record | None, digests: dict[str, str]) -> None:
    expected, source = entry.digests, LOCK_FILE
    if not expected and known is not None:
        expected, source = {"sha256": known.sha256}, f"{record_path(path).name}, recorded on the first fetch"
    for kind, value in expected.items():
        if not digests[kind].startswith(value):
            raise WrongFileError(f"{path}: expected {kind} {value} ({source}), found {digests[kind]}")
