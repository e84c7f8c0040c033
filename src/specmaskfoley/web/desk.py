"""One job at a time on the device; the others wait in a line that everyone can see, and may leave it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from specmaskfoley.foley import Stopped


class Job:
    """Work that waits or runs. `tell` and `stopped` are what the work is given: see `foley.Progress`."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.future: Future[Any] = Future()
        self.started_s: float | None = None
        self.share, self.message = 0.0, ""

    def tell(self, share: float, message: str) -> None:
        self.share, self.message = share, message

    def stopped(self) -> bool:
        return self._stop.is_set()

    def cancel(self) -> None:
        """At once where the job waits; at its next step where it runs."""
        self._stop.set()
        self.future.cancel()

    @property
    def left_s(self) -> float | None:
        """Seconds until the end, if it goes on as it did; None: too early to say."""
        if self.started_s is None or self.share < 0.05:
            return None
        return (time.monotonic() - self.started_s) * (1 - self.share) / self.share

    def result(self) -> Any:
        """What the work returned, once it is done.

        Raises:
            Stopped: it was cancelled; else what the work raised.
        """
        try:
            return self.future.result()
        except CancelledError:
            raise Stopped("stopped") from None


class Desk:
    """The line of jobs.

    Args:
        most: jobs that may wait or run at once.
    """

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="foley")

    def submit(self, work: Callable[[Job], Any]) -> Job:
        """Put work in line.

        Raises:
            ValueError: the line is full.
        """
        job = Job()
        with self._lock:
            if len(self._jobs) >= self._most:
                raise ValueError(f"{len(self._jobs)} jobs are in line already, and no more are taken; try again later")
            self._jobs.append(job)
            job.future = self._worker.submit(self._run, work, job)
        job.future.add_done_callback(lambda _: self._leave(job))
        return job

    def before(self, job: Job) -> int:
        """How many jobs come first."""
        with self._lock:
            return self._jobs.index(job) if job in self._jobs else 0

    def close(self) -> None:
        """Stop everything, and wait until it has."""
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        self._worker.shutdown()

    def _run(self, work: Callable[[Job], Any], job: Job) -> Any:
        job.started_s = time.monotonic()
        return work(job)

    def _leave(self, job: Job) -> None:
        with self._lock:
            self._jobs.remove(job)
