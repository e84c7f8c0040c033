"""One function over many items in worker processes: an item that hangs or crashes costs no other one.

Decoders are C code that reads files of unknown origin. Each item is therefore a task of its own in a worker process
that may be killed or die. Workers are spawned, not forked: a fork would copy the locks that threads of FFmpeg and Arrow
hold, and the lock on the scratch directory. Importing this module imports neither torch nor a decoder.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool
from tqdm import tqdm

try:
    import resource
except ImportError:  # Windows: no bound on memory
    resource = None  # type: ignore[assignment]

Item = TypeVar("Item")
Result = TypeVar("Result")

_TASKS_A_WORKER = 1000  # then a fresh process: what a decoder leaks must not count against later clips
_STALL_S = 90.0  # beyond an item's own time: the start of a worker, and pebble's wait for a lock
_HOUR_S = 3600.0
_GB = 1 << 30
_STARTING = threading.Lock()


@dataclass(frozen=True)
class Lost:
    """An item without a result; `state` is a ledger state: timeout, crashed, or one that the function returns."""

    state: str
    reason: str


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, title: str
) -> list[Result]:
    """Results in the order of the items, with a progress bar; for items that neither hang nor crash.

    Args:
        function: importable.
        workers: processes; 0: one a core; 1: the items are done in this process.

    Raises:
        ValueError: a worker process was killed, twice on the same item, or needed more than an hour for it.
    """
    workers = min(workers or os.cpu_count() or 1, len(items))
    if workers <= 1:
        return [function(item) for item in tqdm(items, title, disable=None)]
    results: list[Result] = []
    with IsolatedPool(workers, timeout_s=_HOUR_S, memory_gb=math.inf) as pool:
        for result in pool.map(function, items, title=title):
            if isinstance(result, Lost):
                raise ValueError(
                    f"{title}: a worker process was killed, perhaps for lack of memory, or hung; try fewer with "
                    f"run.workers (now {workers}). What is finished is kept."
                )
            results.append(result)
    return results


class IsolatedPool:
    """Worker processes for functions that may hang, crash or use up all memory; to be used in a `with`.

    Args:
        workers: processes; 0: one a core.
        timeout_s: an item that takes longer is lost as `timeout`.
        memory_gb: memory an item may ask for beyond what its worker holds once the function is imported; then
            allocation fails and the item is lost as `crashed`. Linux only.
    """

    def __init__(self, workers: int, *, timeout_s: float, memory_gb: float) -> None:
        self._workers = workers or os.cpu_count() or 1
        self._timeout_s = timeout_s
        self._memory_gb = memory_gb
        self._pool: ProcessPool | None = None

    def __enter__(self) -> IsolatedPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, title: str = "", ahead: int | None = None
    ) -> Iterator[Result | Lost]:
        """Results in the order of the items, with a progress bar if there is a title.

        `function` must be importable, from elsewhere than the program itself. Its exceptions are raised here, except
        MemoryError.

        Args:
            ahead: results and unfinished items at once, so that large results do not pile up; None: 8 a worker.

        Raises:
            ValueError: workers cannot be started at all.
        """
        # As bytes: a worker of pebble that reads a task keeps all others from reading, and the function's imports may
        # take seconds.
        packed = pickle.dumps(function)
        ahead = max(ahead or 8 * self._workers, self._workers)
        running: deque[tuple[Item, Any]] = deque()
        todo = iter(items)
        try:
            with tqdm(total=len(items), desc=title, disable=None if title else True) as bar:
                while True:
                    running.extend((item, self._submit(packed, item)) for item in islice(todo, ahead - len(running)))
                    if not running:
                        return
                    result = self._result(running, packed)
                    running.popleft()
                    bar.update()
                    yield result
        finally:
            for _, future in running:  # the caller left early: end what still runs
                future.cancel()

    def _result(self, running: deque[tuple[Item, Any]], packed: bytes) -> Any:
        """The result of the first item; it may be submitted again on the way."""
        died = restarts = 0
        while True:
            item, future = running[0]
            try:
                return future.result(timeout=2 * self._timeout_s + _STALL_S)
            except ProcessExpired as error:
                # Try once more: a system that is short of memory may kill any process, and so may a user.
                died += 1
                if died > 1:
                    return Lost("crashed", f"reading it {_ending(error.exitcode)}")
                running[0] = (item, self._submit(packed, item))
                continue
            except FutureTimeout as error:
                if future.done() and future.exception() is error:
                    return Lost("timeout", f"reading it took longer than prepare.clip_timeout_s={self._timeout_s:g}")
            except BrokenProcessPool:
                restarts += 1
                if restarts > 3:
                    raise ValueError(
                        "worker processes end before they do anything; try fewer with run.workers "
                        f"(now {self._workers})"
                    ) from None
            # The pool is beyond repair: a worker died between two items, or in the middle of a message.
            self._end()
            for number, (waiting, old) in enumerate(running):
                if not old.done() or old.cancelled() or old.exception() is not None:
                    running[number] = (waiting, self._submit(packed, waiting))

    def _submit(self, packed: bytes, item: Any) -> Any:
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=self._workers,
                max_tasks=_TASKS_A_WORKER,
                initializer=_start_worker,
                context=_Context(),
            )
        return self._pool.schedule(_call, args=(packed, item, self._memory_gb), timeout=self._timeout_s)

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()


class _Process(SpawnProcess):
    """A process that imports what it is given to do, and not what the program that starts it imports: in a stage that
    is torch and more, 2.5 s and 0.5 GB for a worker that decodes.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802
        main = sys.modules["__main__"]
        with _STARTING:
            spec, file = main.__spec__, vars(main).pop("__file__", None)
            main.__spec__ = None  # without both, multiprocessing knows no program to import
            try:
                return SpawnProcess._Popen(process_obj)
            finally:
                main.__spec__ = spec
                if file is not None:
                    main.__file__ = file


class _Context(SpawnContext):
    """Spawns, and keeps its locks: pebble unlinks them before it ends workers that may only be starting."""

    Process = _Process

    def __init__(self) -> None:
        self._locks: list[Any] = []

    def RLock(self) -> Any:  # noqa: N802
        self._locks.append(super().RLock())
        return self._locks[-1]


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Otherwise the workers of a killed stage would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(packed: bytes, item: Any, memory_gb: float) -> Any:
    function = _unpacked(packed, memory_gb)
    try:
        return function(item)
    except MemoryError:
        return Lost("crashed", f"reading it took more memory than prepare.clip_memory_gb={memory_gb:g}")


@lru_cache(maxsize=1)
def _unpacked(packed: bytes, memory_gb: float) -> Callable[[Any], Any]:
    """The function; from here on memory is limited, and what importing the function took does not count."""
    function: Callable[[Any], Any]
    if resource is None or math.isinf(memory_gb):
        function = pickle.loads(packed)
        return function
    # Not the whole address space: a library that is imported late maps gigabytes it never touches (torch: 3).
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    function = pickle.loads(packed)
    bound = _data_bytes() + round(memory_gb * _GB)
    resource.setrlimit(resource.RLIMIT_DATA, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))
    return function


def _data_bytes() -> int:
    """Bytes of private memory that this process has asked for; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended its process with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"ended its process by {name}" + (" (out of memory?)" if name in ("SIGKILL", "SIGABRT") else "")
