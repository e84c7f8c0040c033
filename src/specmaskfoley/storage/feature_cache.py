"""Arrays that cost a network's pass, kept under the content of the file they were made from."""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

_ASKED_AT_ONCE = 500  # SQLite bounds the variables of a statement

Arrays = Mapping[str, np.ndarray]


class FeatureCache:
    """Name -> arrays in one SQLite file. What one `put` holds is all there after a kill, or not at all.

    Raises:
        ValueError: the file is no such cache.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._connection = sqlite3.connect(self._path, timeout=60)
        try:
            self._connection.execute("CREATE TABLE IF NOT EXISTS rows (name TEXT PRIMARY KEY, arrays BLOB NOT NULL)")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ValueError(f"{path}: not a cache of features ({error}); delete it") from None

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def known(self, names: Iterable[str]) -> set[str]:
        """Those of the names that are here."""
        wanted, found = list(dict.fromkeys(names)), set[str]()
        for first in range(0, len(wanted), _ASKED_AT_ONCE):
            part = wanted[first : first + _ASKED_AT_ONCE]
            question = f"SELECT name FROM rows WHERE name IN ({','.join('?' * len(part))})"
            found |= {name for (name,) in self._connection.execute(question, part)}
        return found

    def get(self, name: str) -> dict[str, np.ndarray]:
        """The arrays under a name.

        Raises:
            KeyError: there are none.
        """
        row = self._connection.execute("SELECT arrays FROM rows WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise KeyError(name)
        with np.load(io.BytesIO(row[0]), allow_pickle=False) as stored:
            return dict(stored)

    def put(self, rows: Mapping[str, Arrays]) -> None:
        """Keep all of them; a name that is here already gets the new arrays."""
        packed = []
        for name, arrays in rows.items():
            stream = io.BytesIO()
            np.savez(stream, **arrays)
            packed.append((name, stream.getvalue()))
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", packed)


def content_key(path: str | os.PathLike[str]) -> str:
    """32 hex digits of a file's sha256."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]
