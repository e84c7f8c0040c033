"""The folder of fetched clips: their files, and how each attempt ended.

    <fetch.folder>/clips/ab/<clip_id>.mp4   whole files only; ab: of a hash, so that no directory gets 200,000 entries
    <fetch.folder>/outcomes.sqlite          how the last try of each clip ended
    <fetch.folder>/session.json             the present run

The run after a killed one continues it: clips whose attempt has ended are not tried again, so that both together give
what one undisturbed run gives. A run after a finished one, or with another source, other cookies or proxy, or other
states in fetch.again, is a new session: it tries again the clips for which the answer may have changed.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from specmaskfoley.clips.vggsound import VggSoundClip, Wanted, list_row
from specmaskfoley.storage.files import read_json, sha256_text, write_json
from specmaskfoley.storage.locks import held
from specmaskfoley.storage.store import Store
from specmaskfoley.storage.tables import LISTED

PASSING = ("failed", "corrupt")
"""States that every run tries again."""

ACCESS = ("geo_blocked", "age_restricted")
"""States that are tried again with other cookies or another proxy."""

LASTING = ("missing", "private", "removed")
"""States that are tried again only when `fetch.again` names them."""


class FetchedClips:
    """The fetched clips of `fetch.folder`; use it in `with`, one process at a time, from any of its threads.

    Args:
        folder: fetch.folder.
        source: data.source; what another source could not give is tried again.
        access: a hash of cookies and proxy; see ACCESS.
        again: states to try again besides those that every run tries again.
    """

    def __init__(self, folder: Path, *, source: str, access: str = "", again: Collection[str] = ()) -> None:
        if unknown := set(again) - {*PASSING, *ACCESS, *LASTING}:
            raise ValueError(
                f"fetch.again={', '.join(sorted(unknown))}: expected any of {', '.join((*ACCESS, *LASTING))}"
            )
        self.folder = folder
        self._source, self._access, self._again = source, access, frozenset(again)
        self._mutex = threading.Lock()
        self._opened = ExitStack()

    def __enter__(self) -> FetchedClips:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            waiting = f"clips: another run fetches into {self.folder}; waiting for it"
            stack.enter_context(held(self.folder / ".lock", lambda: print(waiting, flush=True)))
            last = read_json(self._session_path) if self._session_path.exists() else {}
            self._session = int(last.get("number", 0))
            if last != self._present(finished=False):
                self._session += 1
                write_json(self._session_path, self._present(finished=False))
            self._outcomes = stack.enter_context(Store(self.folder / "outcomes.sqlite"))
            self._opened = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened:
            if kind is None:
                write_json(self._session_path, self._present(finished=True))

    def path(self, clip_id: str) -> Path:
        """Where a clip's file belongs, whether it exists or not."""
        return self.folder / "clips" / sha256_text(clip_id)[:2] / f"{clip_id}.mp4"

    def to_fetch(self, clips: Iterable[VggSoundClip]) -> list[VggSoundClip]:
        """Those of the clips that this run has to try."""
        return [clip for clip in clips if self._is_open(clip.clip_id)]

    def conclude(self, clip_id: str, state: str = LISTED, reason: str = "") -> None:
        """Record how an attempt ended: LISTED if the file is in its place, else a state and its reason."""
        with self._mutex:
            record = {
                "state": state,
                "reason": reason,
                "tried_at": _now(),
                "tries": self.tries(clip_id) + 1,
                "session": self._session,
                "source": self._source,
                "access": self._access,
            }
            self._outcomes.put({clip_id: record})

    def take_in(self, clip_id: str, file: Path) -> None:
        """Move the finished file of a clip into its place, and note it."""
        target = self.path(clip_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)
        self.conclude(clip_id)

    @contextmanager
    def unfinished(self) -> Iterator[Path]:
        """A directory of this run for files that are not finished; those of killed runs are removed.

        It has a name of its own, for the orphaned processes of a killed run may still write into theirs.
        """
        root = self.folder / "unfinished"
        shutil.rmtree(root, ignore_errors=True)
        directory = root / f"{os.getpid()}-{time.time_ns()}"
        directory.mkdir(parents=True)
        try:
            yield directory
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def tries(self, clip_id: str) -> int:
        """Number of runs in which an attempt to fetch a clip ended."""
        return int((self._outcomes.get(clip_id) or {}).get("tries", 0))

    def rows(self, items: Sequence[Wanted]) -> list[dict[str, Any]]:
        """The clip list's rows; every listed clip must have been tried to the end, now or earlier."""
        rows = []
        for item in items:
            record = self._outcomes.get(item.clip.clip_id) or {}
            rows.append(
                list_row(
                    item,
                    self.path(item.clip.clip_id),
                    str(record.get("source", self._source)),
                    **{name: record[name] for name in ("state", "reason", "tried_at", "tries") if name in record},
                )
            )
        return rows

    def _present(self, *, finished: bool) -> dict[str, Any]:
        """What session.json says of this run."""
        access = {"source": self._source, "access": self._access, "again": sorted(self._again)}
        return {"number": self._session, "finished": finished, **access}

    @property
    def _session_path(self) -> Path:
        return self.folder / "session.json"

    def _is_open(self, clip_id: str) -> bool:
        record, here = self._outcomes.get(clip_id), self.path(clip_id).exists()
        if here and (record is None or record["state"] != LISTED):
            self.conclude(clip_id)  # a kill came between the file and its record
            return False
        if record is None or record["state"] == LISTED:
            return not here
        if record["session"] == self._session:
            return False
        return (
            record["state"] in PASSING
            or record["state"] in self._again
            or record["source"] != self._source
            or (record["state"] in ACCESS and record["access"] != self._access)
        )


def _now() -> str:
    """UTC to the second; SOURCE_DATE_EPOCH, where it is set, makes results repeatable to the byte."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
