"""Directories for half-finished work, from which a killed stage continues, and for work that is worth keeping.

DVC deletes a stage's outputs before the stage runs, so unfinished work lives in
`$DVC_ROOT/.work/<stage>-<fingerprint>/` and is moved into the outputs at the end (`scratch`), or stays there and is
linked into the outputs, for the next run with other clips (`pool`).
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from specmaskfoley.storage.locks import held


def fingerprint(
    settings: Any, inputs: Iterable[str | os.PathLike[str]], code: Iterable[ModuleType] | None = None
) -> str:
    """16 hex digits that change with the settings, the input files and the project's own code.

    The code counts, so that a changed model never resumes from a checkpoint of the old one: everything imported, or,
    given some modules, what these do, whatever their comments and docstrings say. A directory counts with the names
    and contents of all files under it.

    Raises:
        ValueError: if an input does not exist.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(settings, sort_keys=True, default=_jsonable).encode())
    for item in inputs:
        path = Path(item)
        if not path.exists():
            raise ValueError(f"{path}: no such file or directory; run the earlier stages first: dvc repro")
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            name = file.relative_to(path).as_posix() if path.is_dir() else ""
            digest.update(f"\0{name}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    if code is None:
        for source in _loaded_sources():
            digest.update(source.read_bytes())
    else:
        for module in code:
            digest.update(_meaning(module).encode())
    return digest.hexdigest()[:16]


@contextmanager
def scratch(stage: str, settings: Any, inputs: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Yield the stage's scratch directory, locked; removed after success, kept after an error or a kill.

    A second run of the same work waits for the first, since a killed `dvc` leaves its stage running.
    """
    with _held(stage, fingerprint(settings, inputs)) as directory:
        yield directory
        shutil.rmtree(directory)


@contextmanager
def pool(
    stage: str, settings: Any, inputs: Iterable[str | os.PathLike[str]], code: Iterable[ModuleType] = ()
) -> Iterator[Path]:
    """Yield a locked directory that stays, for results that cost much and are worth taking up again.

    Its fingerprint covers the settings, the inputs and what the modules of `code` do; see `fingerprint`.
    """
    with _held(stage, fingerprint(settings, inputs, code)) as directory:
        yield directory


@contextmanager
def _held(stage: str, mark: str) -> Iterator[Path]:
    root = Path(os.environ.get("DVC_ROOT") or Path.cwd()) / ".work"
    directory = root / f"{stage}-{mark}"
    root.mkdir(parents=True, exist_ok=True)
    # Both lie beside the directory: removing a locked file inside it would let in two runs at once.
    lock, holder = directory.with_suffix(".lock"), directory.with_suffix(".holder")

    def waiting() -> None:
        process = holder.read_text(encoding="utf-8") if holder.exists() else "unknown"
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


def _loaded_sources() -> list[Path]:
    modules = sorted(name for name in sys.modules if name.split(".")[0] == "specmaskfoley")
    files = [getattr(sys.modules[name], "__file__", None) for name in modules]
    return [Path(file) for file in files if file and file.endswith(".py")]


def _meaning(module: ModuleType) -> str:
    """A module's code without comments, docstrings and layout: a better word must not cost days of extraction."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [item for item in body if not _is_text(item)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"settings of a fingerprint must be JSON-able, found {type(value).__name__}")
