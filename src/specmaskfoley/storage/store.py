"""Results that cost much, by key, in one SQLite file that survives a kill at any moment."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

_KEYS_A_QUERY = 500  # SQLite limits the variables of a statement


class Store:
    """Key -> value: arrays by name, or anything that JSON can hold. What one `put` writes is all there after a kill,
    or none of it.

    One process at a time; keep a lock around it (`storage.scratch`). Its methods may be called from any thread.

    Raises:
        ValueError: of every method: the file is no such store, is damaged, or the disk is full.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
        try:
            with self._transaction() as connection:
                # One process alone: then the write-ahead log needs no shared memory, which network disks lack.
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                # No wait for the disk at each `put` (milliseconds): only a power failure loses the last ones.
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value NOT NULL)")
        except ValueError:
            self._connection.close()
            raise

    def known(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that are here."""
        wanted, found = list(dict.fromkeys(keys)), set[str]()
        with self._transaction() as connection:
            for first in range(0, len(wanted), _KEYS_A_QUERY):
                part = wanted[first : first + _KEYS_A_QUERY]
                query = f"SELECT key FROM entries WHERE key IN ({','.join('?' * len(part))})"
                found |= {key for (key,) in connection.execute(query, part)}
        return found

    def get(self, key: str) -> Any:
        """The value of a key, or None."""
        with self._transaction() as connection:
            row = connection.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else _unpacked(row[0])

    def __getitem__(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def put(self, values: Mapping[str, Any]) -> None:
        """Write all of them; a key that is here already gets the new value."""
        packed = [(key, _packed(value)) for key, value in values.items()]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", packed)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._mutex, self._connection:
                yield self._connection
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self._path}: cannot be read or written ({error}); make room on the disk, or, if the file is "
                "damaged, delete it"
            ) from None


def _packed(value: Any) -> str | bytes:
    """Arrays as bytes, anything else as text; SQLite keeps the two apart."""
    if (
        isinstance(value, Mapping)
        and value
        and all(isinstance(item, np.ndarray | np.generic) for item in value.values())
    ):
        stream = io.BytesIO()
        np.savez(stream, **value)
        return stream.getvalue()
    return json.dumps(value, ensure_ascii=False)


def _unpacked(stored: str | bytes) -> Any:
    if isinstance(stored, str):
        return json.loads(stored)
    with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
        return dict(arrays)
