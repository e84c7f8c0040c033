"""Directories for half-finished work, from which a killed stage continues, and for work that is worth keeping.

DVC deletes a stage's outputs before the stage runs, so unfinished work lives in `$DVC_ROOT/.work/<stage>-<key>/` and
is moved into the outputs at the end (`scratch`), or stays there and is linked into the outputs, for the next run with
other clips (`pool`). The key stands for what the work depends on: settings, inputs and code (see `lineage`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from specmaskfoley.storage.locks import held


@contextmanager
def scratch(stage: str, key: str) -> Iterator[Path]:
    """Yield the directory of unfinished work, locked; removed after success, kept after an error or a kill.

    A second run of the same work waits for the first, since a killed `dvc` leaves its stage running.
    """
    with pool(stage, key) as directory:
        yield directory
        shutil.rmtree(directory)


@contextmanager
def pool(stage: str, key: str) -> Iterator[Path]:
    """Yield a locked directory that stays, for results that cost much and are worth taking up again."""
    root = Path(os.environ.get("DVC_ROOT") or Path.cwd()) / ".work"
    directory = root / f"{stage}-{key}"
    root.mkdir(parents=True, exist_ok=True)
    # Both lie beside the directory: removing a locked file inside it would let in two runs at once.
    lock, holder = directory.with_suffix(".lock"), directory.with_suffix(".holder")

    def waiting() -> None:
        process = (holder.read_text(encoding="utf-8") if holder.exists() else "") or "unknown"
        print(f"{stage}: process {process} is doing the same work; waiting for it", flush=True)

    with held(lock, waiting):
        holder.write_text(str(os.getpid()), encoding="utf-8")
        try:
            directory.mkdir(exist_ok=True)
            yield directory
        finally:
            holder.unlink(missing_ok=True)
            with suppress(PermissionError):  # Windows keeps open files
                lock.unlink(missing_ok=True)  # while still held; who waits for the removed file opens a new one
