"""What is known so far of many items, one line each, that survives a kill at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Journal:
    """Records by key in an append-only file of JSON lines; the last line of a key counts.

    A line cut off by a kill is dropped. One process writes at a time; keep a lock around it (`storage.scratch`).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._records: dict[str, dict[str, Any]] = {}
        text = self._path.read_bytes() if self._path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                self._records[entry["key"]] = entry["record"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{self._path}:{number}: not a line of a journal; remove the file to begin anew"
                ) from None
        self._stream = self._path.open("r+b" if self._path.exists() else "w+b")
        self._stream.truncate(len(whole))
        self._stream.seek(len(whole))

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def get(self, key: str) -> dict[str, Any] | None:
        """The record of a key, if there is one."""
        return self._records.get(key)

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Write a record, in place of any earlier one of the key."""
        line = json.dumps({"key": key, "record": dict(record)}, ensure_ascii=False)
        self._stream.write(line.encode() + b"\n")
        self._stream.flush()
        self._records[key] = dict(record)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
