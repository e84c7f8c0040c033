"""The console command `specmaskfoley repro`: stages of the pipeline side by side.

`dvc repro` runs one stage at a time. Here each is a `dvc repro --single-item` of its own, which starts as soon as all
that it needs is there. DVC's locks order what these processes write: dvc.lock, the cache, .gitignore and git's index.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

MOST_LANES = 3  # more stages are never ready at a time
BAR_S = 10.0
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def repro(targets: Sequence[str], lanes: int | None) -> None:
    """Bring stages up to date, and what they depend on.

    Args:
        targets: names of stages; none: all.
        lanes: how many run at a time at most; None: as `default_lanes` says.

    Raises:
        ValueError: a stage failed, or DVC cannot do what it is asked; it is named. What ran beside it has ended.
        SystemExit: on SIGINT, SIGTERM or SIGHUP, which the stages got as well, with 128 and the signal's number.
    """
    try:
        _repro(targets, lanes or default_lanes())
    except DvcException as error:
        raise ValueError(str(error)) from error


def default_lanes() -> int:
    """A stage for each core, at most three; one where there is a GPU, whose memory stages would have to share."""
    gpu = sys.platform == "darwin" or Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi")
    return 1 if gpu else min(os.cpu_count() or 1, MOST_LANES)


def _repro(targets: Sequence[str], lanes: int) -> None:
    repo = Repo(_wait_for_lock=True)
    needs, changed = _pipeline(repo, targets)
    waiting: list[str] = []
    for name, needed in needs.items():
        if name in changed or not needed.isdisjoint(waiting):
            waiting.append(name)
    if not waiting:
        print("Data and pipelines are up to date.")
        return
    done, failed, running = needs.keys() - waiting, list[str](), dict[Future[int], str]()
    with _processes(lanes, max(map(len, waiting))) as start:
        while True:
            ready = next((name for name in waiting if needs[name] <= done), None)
            if ready and not failed and len(running) < lanes:
                waiting.remove(ready)
                # What ran before it may have made the same as ever: asking takes a tenth of what a process takes.
                if ready in changed or repo.status([ready]):
                    running[start(ready)] = ready
                else:
                    done.add(ready)
            elif running:
                for one in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(one)
                    (failed.append if one.result() else done.add)(name)
            else:
                break
    if failed:
        raise ValueError(f"stage {', '.join(failed)} failed; its lines above say why")


def _pipeline(repo: Repo, targets: Sequence[str]) -> tuple[dict[str, set[str]], set[str]]:
    """What each stage needs, and which stages are not up to date.

    First come those with the longest chain behind them, so a stage follows all that it needs.
    """
    with lock_repo(repo):
        graph = get_active_graph(repo.index.graph)
        behind = dict.fromkeys(plan_repro(graph, collect_stages(repo, targets)), 0)
        for stage in reversed(behind):
            for needed in graph.successors(stage):
                behind[needed] = max(behind[needed], behind[stage] + 1)
        order = sorted((stage for stage in graph if stage in behind), key=lambda stage: -behind[stage])
        needs = {stage.addressing: {needed.addressing for needed in graph.successors(stage)} for stage in order}
        return needs, {stage.addressing for stage in order if stage.status()}


@contextmanager
def _processes(lanes: int, width: int) -> Iterator[Callable[[str], Future[int]]]:
    """A function that runs a stage in the background and promises its exit code; on leaving, none runs any more.

    Each runs in a session of its own, so that a signal reaches it from here alone, and then all its processes.
    """
    processes, starting, received = set[subprocess.Popen[bytes]](), threading.Lock(), list[int]()

    def run(name: str) -> int:
        with starting:
            if received:
                return 1
            process = subprocess.Popen(
                [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name],
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            processes.add(process)
        with process:
            assert process.stdout is not None
            for line in lines(process.stdout):  # to the end of the last process that has inherited the pipe
                sys.stdout.write(f"{name:{width}} | {line}\n")
                sys.stdout.flush()
        processes.discard(process)
        return process.returncode

    def send(number: int) -> None:
        for process in processes.copy() if sys.platform != "win32" else ():  # there, control-C reaches all by itself
            with suppress(ProcessLookupError):  # it has ended
                os.killpg(process.pid, number)

    def receive(number: int, _: object) -> None:
        received.append(number)
        if len(received) == 1:
            raise SystemExit(128 + number)
        send(signal.SIGKILL)  # no patience with the checkpoints that trainings write

    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup has it
    before = [signal.signal(number, receive) for number in handled]
    pool = ThreadPoolExecutor(lanes)
    try:
        yield lambda name: pool.submit(run, name)
    except BaseException:
        if not received:
            received.append(signal.SIGTERM)
        with starting:  # so that none is missed
            send(received[0])
        raise
    finally:
        pool.shutdown()
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)


def lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines that a program writes; of a progress bar, whose states end with a carriage return, one every ten seconds.

    The last state of a bar is always among them.
    """
    shown_s, bar = -math.inf, ""
    for line in io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline=""):
        text = line.rstrip()
        if not text:
            continue
        if not line.endswith("\r"):
            yield text
            bar = ""
        elif time.monotonic() - shown_s >= BAR_S:
            yield text
            shown_s, bar = time.monotonic(), ""
        else:
            bar = text
    if bar:
        yield bar
