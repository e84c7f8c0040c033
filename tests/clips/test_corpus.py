"""A zoo of broken and odd files: every one gets its state, nothing hangs, nothing crashes, memory stays small."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from functools import partial
from types import SimpleNamespace

import psutil
import pytest
from helpers.clip_work import statistics
from helpers.demands import row, settings
from helpers.odd_media import corpus

from specmaskfoley.clips.inspection import demands, inspect_clip, inspect_clips
from specmaskfoley.media.frames import View
from specmaskfoley.media.sound import Sound
from specmaskfoley.processes.isolation import IsolatedPool, Lost
from specmaskfoley.storage.tables import LEDGER_SCHEMA, STATES, read_table, write_table

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes, links and names of POSIX")

VIEWS = (
    View(25.0, 50, 48, "stretch", "on_screen"),
    View(8.0, 16, 48, "crop", "rate_filter"),
)
SOUND = Sound(22050, 44100)
MEMORY_MB = 500  # of one worker, everything imported


class Memory:
    """The most that any child which this process starts meanwhile holds, in megabytes."""

    def __enter__(self):
        self._others = set(psutil.Process().children(recursive=True))
        self.peak_mb, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _watch(self):
        own = psutil.Process().cmdline()
        while not self._ended.wait(0.02):
            for child in set(psutil.Process().children(recursive=True)) - self._others:
                try:
                    if child.cmdline() != own:  # or it is still a copy of this process
                        self.peak_mb = max(self.peak_mb, child.memory_info().rss / 1e6)
                except psutil.NoSuchProcess:
                    continue


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """The cases, their rows of the ledger, seconds taken and the workers' peak memory."""
    home = tmp_path_factory.mktemp("zoo")
    folder = home / "clips"
    folder.mkdir()
    cases = corpus(home / "work")
    for case in cases:
        case.make(folder / case.name)
    with pytest.MonkeyPatch.context() as patch, Memory() as memory:
        patch.setenv("DVC_ROOT", str(home))
        begin = time.monotonic()
        ledger = inspect_clips([row(folder / case.name) for case in cases], settings())
        seconds = time.monotonic() - begin
    return SimpleNamespace(cases=cases, ledger=ledger, seconds=seconds, memory_mb=memory.peak_mb, home=home)


def test_every_file_gets_its_state(zoo):
    assert len(zoo.cases) >= 40
    wrong = []
    for case, found in zip(zoo.cases, zoo.ledger, strict=True):
        if found["state"] not in case.states or case.reason not in found["reason"]:
            wrong.append(f"{case.name!r}: {found['state']} ({found['reason']}), expected {set(case.states)}")
        if (found["reason"] == "") != (found["state"] == "ready"):
            wrong.append(f"{case.name!r}: {found['state']} with the reason {found['reason']!r}")
        for name, fact in case.facts.items():
            if found[name] != pytest.approx(fact):
                wrong.append(f"{case.name!r}: {name} {found[name]}, expected {fact}")
    assert not wrong, "\n".join(wrong)
    assert set(Counter(found["state"] for found in zoo.ledger)) <= set(STATES)


def test_the_ledger_can_be_written(zoo):
    write_table(zoo.home / "ledger.parquet", zoo.ledger, LEDGER_SCHEMA)
    back = read_table(zoo.home / "ledger.parquet", LEDGER_SCHEMA)
    assert [found["path"] for found in back] == [found["path"] for found in zoo.ledger]


def test_time_and_memory_are_bounded(zoo):
    print(f"{len(zoo.cases)} files, {zoo.seconds:.1f} s, {zoo.memory_mb:.0f} MB")
    assert zoo.seconds < 60
    assert zoo.memory_mb < MEMORY_MB


@pytest.mark.slow
def test_ready_files_can_be_read_as_later_stages_do(zoo):
    paths = [found["path"] for found in zoo.ledger if found["state"] == "ready"]
    assert len(paths) > 40
    with IsolatedPool(2, timeout_s=30.0, memory_gb=2.0) as pool:
        for path, result in zip(paths, pool.map(partial(statistics, VIEWS, SOUND), paths, ahead=8), strict=True):
            assert not isinstance(result, Lost), f"{path}: {result}"
            shapes, finite = result
            assert shapes == [(50, 48, 48, 3), (16, 48, 48, 3), (44100,)], path
            assert finite, path


def test_damaged_content_of_a_sound_header_is_counted(zoo):
    found = {entry["clip_id"]: entry for entry in zoo.ledger}["mostly_zeroed.mp4"]
    assert found["state"] == "corrupt"
    assert "of 50 frames in the first 2 s can be decoded" in found["reason"]
    assert inspect_clip(found["path"], demands=demands(settings()))["reason"] == found["reason"]
