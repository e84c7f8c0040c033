"""Bring weight files into their folder, from a bundle or by download; they are checked before they get their names."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from specmaskfoley.settings import Weights
from specmaskfoley.storage.files import atomic_path
from specmaskfoley.storage.locks import held
from specmaskfoley.weights.download import Transfer, UnreachableError, download_checked
from specmaskfoley.weights.lock import Lock, WeightFile, locked
from specmaskfoley.weights.records import Record, WrongFileError, checked, digests_of, recorded, remember


def transfer_of(weights: Weights) -> Transfer:
    """How params.yaml says to download weights."""
    return Transfer(weights.mirror, weights.proxy, weights.retries)


def fetch(
    names: Iterable[str], lock: Lock, folder: str | Path, transfer: Transfer, bundle: str | Path | None = None
) -> dict[str, Record]:
    """Make sure that files are in `folder` and are the right ones; known files are not hashed again.

    With a `bundle`, a directory of the same layout, nothing is downloaded: files are linked from there, or copied.

    Raises:
        ValueError: one line for each file that could not be fetched, and one for all whose servers cannot be reached;
            the others are fetched nevertheless.
    """
    records, problems, reason = {}, [], ""
    unreached: dict[str, list[str]] = {}  # by host
    for name in names:
        entry = locked(name, lock)
        target, host = Path(folder) / entry.file, transfer.host(entry.address or "")
        if host in unreached and bundle is None and not target.exists():
            unreached[host].append(name)
            continue
        try:
            # That one host cannot be reached may be its fault; the next one will be that of the network.
            once = replace(transfer, first_retries=0) if unreached else transfer
            records[name] = _fetch_one(name, entry, target, once, bundle)
        except UnreachableError as error:
            unreached[error.host] = [name]
            reason = reason or error.reason
        except (ValueError, OSError) as error:
            problems.append(f"{name}: {error}")
    if unreached:
        absent = ", ".join(name for found in unreached.values() for name in found)
        problems.append(
            f"{', '.join(unreached)} cannot be reached ({reason}), for {absent}: check the network, weights.proxy and "
            "weights.mirror, or copy a filled weights folder here and name it in weights.bundle (docs/paper_profile.md)"
        )
    if problems:
        raise ValueError("\n".join(problems))
    return records


def describe(records: dict[str, Record], lock: Lock) -> dict[str, dict[str, str | int]]:
    """The content of data/weights.json; the same for the same bytes."""
    return {
        name: {
            "file": lock[name].file,
            "size": record.size,
            "sha256": record.sha256,
            "licence": lock[name].licence,
        }
        for name, record in sorted(records.items())
    }


def restrictions(names: Iterable[str], lock: Lock) -> list[str]:
    """A line for each licence that forbids commercial use."""
    forbidden: dict[str, list[str]] = {}
    for name in names:
        entry = locked(name, lock)
        if entry.commercial == "forbidden":
            forbidden.setdefault(entry.licence, []).append(name)
    return [f"no commercial use of {', '.join(found)}: {licence}" for licence, found in forbidden.items()]


def _fetch_one(name: str, entry: WeightFile, target: Path, transfer: Transfer, bundle: str | Path | None) -> Record:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        waiting = f"{name}: another process is fetching it; waiting"
        lock = target.with_name(target.name + ".lock")
        with held(lock, lambda: tqdm.write(waiting, file=sys.stderr)):
            if not target.exists():
                _bring(name, entry, target, transfer, bundle)
    try:
        return checked(target, entry)
    except WrongFileError as error:
        raise ValueError(f"{error}; delete it and fetch it again") from None


def _bring(name: str, entry: WeightFile, target: Path, transfer: Transfer, bundle: str | Path | None) -> None:
    def check(path: Path) -> dict[str, str]:
        _check_kind(path, entry)
        return digests_of(path, entry, recorded(target))

    if bundle is not None:
        source = Path(bundle) / entry.file
        if not source.is_file():
            raise ValueError(f"{source}: not in the bundle; put it there, or set weights.bundle to null to download it")
        digests = check(source)
        _link(source.resolve(), target)
    elif entry.address is None:
        raise ValueError(f"has no address to download from: {entry.by_hand}, and put it at {target}")
    else:
        try:
            digests = download_checked(entry.address, target, transfer, check, size=entry.size, title=name)
        except WrongFileError as error:
            raise ValueError(f"{error}; if upstream has a new file, change weights.lock.yaml") from None
    remember(target, entry, digests)


def _link(source: Path, target: Path) -> None:
    """Link a file; copy it only where the file system has no links."""
    with atomic_path(target) as temporary:
        for link in (os.link, os.symlink):
            try:
                return link(source, temporary)
            except OSError:
                continue
        shutil.copy2(source, temporary)


def _check_kind(path: Path, entry: WeightFile) -> None:
    """Check the format of a file without a known checksum."""
    if entry.digests or entry.kind == "text":
        return
    from specmaskfoley.weights.reading import check_format  # imports torch: only where needed

    try:
        check_format(path, archive=entry.member is not None)
    except ValueError as error:
        raise WrongFileError(str(error)) from None
