"""One function over many items in all cores, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, title: str
) -> list[Result]:
    """Results in the order of the items. `function` must be importable, for workers are spawned, not forked:
    a fork would copy the threads' locks of FFmpeg and Arrow, and the lock on the scratch directory.

    Args:
        workers: processes; 0 means one a core.
    """
    workers = min(workers or os.cpu_count() or 1, len(items))
    if workers <= 1:
        return [function(item) for item in tqdm(items, title, disable=None)]
    chunk = max(1, min(16, len(items) // (workers * 8)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
        try:
            results = pool.map(function, items, chunksize=chunk)
            return list(tqdm(results, title, total=len(items), disable=None))
        except BrokenProcessPool:
            raise ValueError(
                f"{title}: a worker process was killed, perhaps for memory; try fewer with run.workers "
                f"(now {workers}). What is finished is kept."
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Workers of a killed stage would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
