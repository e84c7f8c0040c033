"""One job runs at a time; the others wait in a queue in which each knows its place, and may be cancelled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from specmaskfoley.foley import Stopped


class Full(ValueError):  # noqa: N818, nothing went wrong
    """As many jobs as are taken wait already."""


def sentence(error: Exception) -> str:
    """What a user is told of an error: one sentence, without paths of this machine."""
    if isinstance(error, OSError):
        return f"A file could not be read or written: {error.strerror or type(error).__name__}."
    if not isinstance(error, ValueError):
        return "This failed. The server's terminal says why."
    text = str(error)
    return text if text.endswith(".") else f"{text[:1].upper()}{text[1:]}."


class Job:
    """Work that waits or runs. It calls `report` with its progress, and ends when `stopped` returns True."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.future: Future[Any] = Future()
        self.started_s: float | None = None
        self.share, self.message = 0.0, ""

    def report(self, share: float, message: str) -> None:
        self.share, self.message = share, message

    def stopped(self) -> bool:
        return self._stop.is_set()

    def cancel(self) -> None:
        """A job that waits is dropped at once; one that runs ends at its next step."""
        self._stop.set()
        self.future.cancel()

    @property
    def left_s(self) -> float | None:
        """Estimated seconds until the end; None: too early to say."""
        if self.started_s is None or self.share < 0.05:
            return None
        return (time.monotonic() - self.started_s) * (1 - self.share) / self.share

    def result(self) -> Any:
        """What the work returned; waits for its end.

        Raises:
            Stopped: it was cancelled; otherwise what the work raised.
        """
        try:
            return self.future.result()
        except CancelledError:
            raise Stopped("stopped") from None


class JobQueue:
    """Jobs in the order in which they came.

    Args:
        max_jobs: how many may wait or run at once.
    """

    def __init__(self, max_jobs: int = 16) -> None:
        self.max_jobs = max_jobs
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="foley")

    def submit(self, work: Callable[[Job], Any]) -> Job:
        """Add work at the end.

        Raises:
            Full: no more are taken.
        """
        job = Job()
        with self._lock:
            if len(self._jobs) >= self.max_jobs:
                raise Full(f"{len(self._jobs)} jobs are in line already, which is the most; try again later")
            self._jobs.append(job)
            job.future = self._worker.submit(self._run, work, job)
        job.future.add_done_callback(lambda _: self._remove(job))  # one that is cancelled before it runs
        return job

    def __len__(self) -> int:
        with self._lock:
            return len(self._jobs)

    def before(self, job: Job) -> int:
        """How many jobs come before this one."""
        with self._lock:
            return self._jobs.index(job) if job in self._jobs else 0

    def close(self) -> None:
        """Cancel all jobs, and wait for the end of the one that runs."""
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        self._worker.shutdown()

    def _run(self, work: Callable[[Job], Any], job: Job) -> Any:
        job.started_s = time.monotonic()
        try:
            return work(job)
        except (Stopped, ValueError, OSError):
            raise
        except Exception:
            logging.getLogger(__name__).exception("a job failed")
            raise
        finally:  # its place is free before it is told as done
            self._remove(job)

    def _remove(self, job: Job) -> None:
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)
