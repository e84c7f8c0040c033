"""Writing beside sampling, and reading a split piece by piece."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import ROOT

from specmaskfoley.sampling.synthesis import Overlap
from specmaskfoley.storage.tables import ShardWriter, read_arrays, stream_arrays


def test_tasks_run_in_order_beside_their_maker_and_two_at_most_wait():
    done: list[int] = []
    gate = threading.Event()

    def task(number: int) -> None:
        gate.wait(60)
        done.append(number)

    with Overlap() as later:
        later.run(lambda: task(0))
        later.run(lambda: task(1))
        assert done == []  # the maker went on
        blocked = threading.Thread(target=lambda: later.run(lambda: task(2)))
        blocked.start()
        blocked.join(0.2)
        assert blocked.is_alive()
        gate.set()
        blocked.join(60)
    assert done == [0, 1, 2]


def test_an_error_of_a_task_reaches_its_maker():
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Overlap() as later:
        later.run(fail)

    def four_times() -> None:
        with Overlap() as later:
            for _ in range(4):
                later.run(fail)

    with pytest.raises(OSError, match="disk full"):
        four_times()


def test_after_an_error_what_waits_is_dropped():
    done: list[int] = []
    gate = threading.Event()

    def first() -> None:
        gate.wait(60)
        done.append(0)

    def fail_with_work_waiting() -> None:
        with Overlap() as later:
            later.run(first)
            later.run(lambda: done.append(1))
            threading.Timer(0.2, gate.set).start()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_with_work_waiting()
    assert done == [0]


WRITER = """
import sys
import numpy as np
from functools import partial
from pathlib import Path
from specmaskfoley.media.writing import write_audio
from specmaskfoley.sampling.synthesis import Overlap

def write(first):
    for number in range(first, first + 20):
        write_audio(Path(sys.argv[1]) / f"{number}.flac", np.random.rand(400_000).astype(np.float32) - 0.5, 22050)

with Overlap() as later:
    for first in range(0, 100_000, 20):
        later.run(partial(write, first))
"""


def test_cancelled_in_the_middle_no_partial_file_is_left(tmp_path: Path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, and inherited, where tests run behind
    try:
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 240
    while len(list(tmp_path.glob("*.flac"))) < 30 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    try:
        _, told = process.communicate(timeout=240)
    finally:
        process.kill()
    assert b"KeyboardInterrupt" in told
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".flac" or path.name.startswith(".")] == []
    for path in tmp_path.iterdir():
        assert len(soundfile.read(path)[0]) == 400_000


def test_a_split_in_pieces_is_the_split(tmp_path: Path):
    values = np.arange(14, dtype=np.float32).reshape(7, 2)
    with ShardWriter(tmp_path, "test", {"a": ("float32", (2,)), "b": ("float32", (2,))}, 3) as shards:
        shards.append([f"clip{number}" for number in range(7)], a=values, b=-values)
    pieces = list(stream_arrays(tmp_path, "test", ["b"]))
    assert [len(ids) for ids, _ in pieces] == [3, 3, 1]
    ids, arrays = read_arrays(tmp_path, "test", ["b"])
    assert [name for piece, _ in pieces for name in piece] == ids
    np.testing.assert_array_equal(np.concatenate([found["b"] for _, found in pieces]), arrays["b"])
    assert set(pieces[0][1]) == {"b"}
    with pytest.raises(ValueError, match="no column c"):
        next(stream_arrays(tmp_path, "test", ["c"]))


@pytest.mark.slow
def test_the_process_does_not_grow_with_the_clips():
    """Sampling with new noise, batch after batch: what it holds afterwards is what it held after the first."""
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
import psutil, torch
from helpers.small_networks import Networks, STEPS, conditions
from specmaskfoley.sampling.fast import Sampler
from specmaskfoley.sampling.guidance import guidance_plan
torch.set_num_threads(1)
networks = Networks()
sampler = Sampler(networks.backbone, networks.control, precision="float32")
plan = guidance_plan("multi", STEPS.steps_of(1), 3.0)
def clips(first, count):
    for seed in range(first, first + count, 4):
        sampler.sample(conditions(4), plan=plan, settings=STEPS, seeds=range(seed, seed + 4))
clips(0, 200)
before = psutil.Process().memory_info().rss
clips(200, 1000)
print(psutil.Process().memory_info().rss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=dict(os.environ))
    assert int(done.stdout) < 8 * 2**20
