"""The logic behind the page: the queue of jobs, choices, sessions and their files."""

from __future__ import annotations

import math
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers import ROOT
from helpers.untrained import write_noise
from matplotlib.image import imread

from specmaskfoley.commands.web import sweep
from specmaskfoley.foley import Foley, Stopped
from specmaskfoley.foley.prompts import Prompt
from specmaskfoley.settings import Params
from specmaskfoley.web import cards
from specmaskfoley.web.jobs import Job, JobQueue
from specmaskfoley.web.studio import Choices, Limits, Result, Session, Studio

WAIT_S = 240
SAMPLING = Params.load(ROOT / "params.yaml").sampling


def choices(text: str = "", candidates: int = 1, **sampling: Any) -> Choices:
    return Choices(prompt=Prompt.of(text), candidates=candidates, sampling=SAMPLING.changed(**sampling))


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    queue = JobQueue(max_jobs=3)
    yield queue
    queue.close()


def until_stopped(job: Job) -> None:
    while not job.stopped():
        time.sleep(0.01)
    raise Stopped("stopped")


def test_jobs_run_one_at_a_time_in_their_order(queue: JobQueue) -> None:
    running, most, order = 0, 0, []

    def work(job: Job) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.02)
        order.append(job)
        running -= 1

    jobs = [queue.submit(work) for _ in range(3)]
    for job in jobs:
        job.future.result(WAIT_S)
    assert most == 1
    assert order == jobs


def test_each_job_knows_its_place_and_leaves_when_cancelled(queue: JobQueue) -> None:
    first, second, third = (queue.submit(until_stopped) for _ in range(3))
    assert [queue.before(job) for job in (first, second, third)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3 jobs are in line"):
        queue.submit(until_stopped)
    second.cancel()
    with pytest.raises(Stopped):
        second.result()
    assert queue.before(third) == 1
    first.cancel()
    with pytest.raises(Stopped):
        first.result()
    assert queue.before(third) == 0
    assert not third.future.done()


def test_a_place_is_free_before_its_job_is_told_as_done(queue: JobQueue) -> None:
    go = threading.Event()
    job = queue.submit(lambda _: go.wait(WAIT_S))
    with queue._lock:  # no place can become free
        go.set()
        with pytest.raises(TimeoutError):
            job.future.result(0.2)
    assert job.future.result(WAIT_S)
    assert len(queue) == 0


def test_a_failure_is_told_and_the_next_job_runs(queue: JobQueue) -> None:
    def fail(job: Job) -> None:
        raise ValueError("no")

    job = queue.submit(fail)
    assert queue.submit(lambda job: 7).future.result(WAIT_S) == 7
    with pytest.raises(ValueError, match="no"):
        job.result()


def test_time_left_follows_from_what_is_done() -> None:
    job = Job()
    assert job.left_s is None
    job.started_s = time.monotonic() - 3
    job.report(0.25, "")
    assert job.left_s == pytest.approx(9, abs=0.1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": -1}, "Seed"),
        ({"seed": 10**30}, "Seed"),
        ({"seed": 1.5}, "Seed must be a whole"),
        ({"seed": math.nan}, "Seed"),
        ({"seed": "7"}, "Seed"),
        ({"candidates": 0}, "Takes"),
        ({"candidates": 5}, "Takes"),
        ({"candidates": True}, "Takes"),
        ({"steps": None}, "Steps"),
        ({"steps": 65}, "Steps"),
        ({"scale": math.inf}, "Guidance"),
        ({"scale": [1]}, "Guidance"),
        ({"text": "x" * 301}, "text is too long"),
        ({"text": {"a": 1}}, "text"),
        ({"text": "0-3: a; 2-5: b"}, "^text 0-3: the next part begins before its end"),
        ({"text": "a\n0-3: b"}, "^text 'a': one of several is for a part"),
        ({"negative": "x" * 301}, "What is not to be heard is too long"),
        ({"negative": ["a"]}, "What is not to be heard"),
        ({"like": "a.wav"}, "not both"),
        ({"text": "", "like": {"path": "a.wav"}}, "must be a file"),
        ({"duration": 0}, "The length must be a number from 0.1"),
        ({"duration": math.nan}, "The length"),
        ({"negative_scale": -1}, "weight"),
    ],
)
def test_choices_beyond_what_is_offered_are_refused(changed: dict, said: str) -> None:
    fine = {"text": "a  \n door\t", "seed": 3.0, "candidates": 2, "steps": 12, "scale": 1, "keep": True}
    expected = choices("a door", 2, seed=3, steps=12, scale=1.0)
    assert Choices.checked(SAMPLING, **fine) == replace(expected, keep_original_audio="mix")
    with pytest.raises(ValueError, match=said):
        Choices.checked(SAMPLING, **fine | changed)


@pytest.fixture(scope="module")
def foley(model: Path) -> Foley:
    return Foley.load(model)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("videos") / "clip.mp4", 3.0)


@pytest.fixture
def studio(foley: Foley, tmp_path: Path) -> Iterator[Studio]:
    studio = Studio(foley, tmp_path / "sessions", Limits(minutes=0.1, megabytes=1, idle_s=1000))
    yield studio
    studio.close()
    assert not studio.folder.exists()


def made(job: Job) -> Result:
    job.future.result(WAIT_S)
    return job.result()


def upload(video: Path, folder: Path, name: str = "an upload") -> str:
    return str(shutil.copy(video, folder / name))


def test_a_result_and_a_part_of_it_anew(studio: Studio, video: Path, tmp_path: Path) -> None:
    session = studio.session("a")
    first = made(studio.make(session, upload(video, tmp_path), choices(candidates=3, steps=2, text="<b>door</b>")))
    assert sorted(one.take.seed for one in first.takes) == [0, 1, 2]
    scores = [one.take.scores["overall"] for one in first.takes]
    assert scores == sorted(scores, reverse=True)
    assert len(imread(first.takes[0].picture).shape) == 3
    second = made(studio.remake(session, first.number, 2, 0.5, 1.25, choices(steps=2, seed=9)))
    old, rate = soundfile.read(first.takes[1].saved.audio)
    new, _ = soundfile.read(second.takes[0].saved.audio)
    part = slice(round(0.5 * rate), round(1.25 * rate))
    assert not np.array_equal(old[part], new[part])
    old[part] = new[part] = 0
    np.testing.assert_array_equal(old, new)
    assert session.results == [first, second]
    shown = cards.takes(first)
    assert "<b>door" not in shown
    assert "&lt;b&gt;door" in shown
    assert shown.count("<article") == 3
    assert cards.history(session.results, 2).count("<li>") == 2
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and session.folder not in path.parents]
    assert outside == [tmp_path / "an upload"]


def test_a_sound_from_words_alone_and_a_part_of_it_anew(studio: Studio) -> None:
    session = studio.session("a")
    given = {"text": "0-0.5: <b>door</b>\n0.5-2: rain", "negative": "music", "duration": 1.5}
    usual = {"seed": 0, "candidates": 2, "steps": 2, "scale": 1, "keep": True}
    first = made(studio.make(session, None, Choices.checked(SAMPLING, **usual, **given)))
    assert [one.take.duration_s for one in first.takes] == pytest.approx([1.5, 1.5], abs=0.01)
    assert all(one.saved.video is None and one.saved.audio.exists() for one in first.takes)
    assert first.takes[0].name == "b-door-b-rain-take-1"
    shown = cards.takes(first)
    assert shown.count("<audio controls") == 2
    assert "<video" not in shown
    assert ">Video</a>" not in shown
    assert "0-0.5: &lt;b&gt;door&lt;/b&gt;; 0.5-2: rain" in shown
    assert ", without \N{LEFT DOUBLE QUOTATION MARK}music" in shown
    assert shown.count("Not judged: there is no picture to compare with.") == 2
    second = made(studio.remake(session, first.number, 2, 0.5, 1.0, choices(steps=2, seed=9, text="rain")))
    old, new = (soundfile.read(one.saved.audio)[0] for one in (first.takes[1], second.takes[0]))
    assert not np.array_equal(old, new)
    np.testing.assert_array_equal(old[:8000], new[:8000])
    for changed, said in (({"text": ""}, "Choose a video first"), ({"duration": None}, "Choose a video first"),
                          ({"duration": 6.5}, "The length may be 6 s at most")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            studio.make(session, None, Choices.checked(SAMPLING, **usual, **given | changed))


def test_a_sound_to_be_like(studio: Studio, video: Path, tmp_path: Path) -> None:
    session = studio.session("a")
    like = upload(video, tmp_path)
    usual = {"text": None, "seed": 0, "candidates": 1, "steps": 1, "scale": 1, "keep": False}
    result = made(studio.make(session, like, Choices.checked(SAMPLING, **usual, like=like)))
    (first,) = result.takes[0].take.record["history"]
    assert first["like"]["name"] == "sound-1"
    assert "Like the given sound" in cards.takes(result)
    assert result.takes[0].name == "an-upload-take-1"
    part = made(studio.remake(session, 1, 1, 0.5, 1.0, Choices.checked(SAMPLING, **usual, like=like)))
    assert [step["like"]["name"] for step in part.takes[0].take.record["history"]] == ["sound-1", "sound-1"]
    assert sorted(path.name for path in session.folder.glob("sound-*")) == ["sound-1"]
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 16000)
    soundfile.write(tmp_path / "long.wav", np.full(7 * 8000, 0.1), 8000)
    soundfile.write(tmp_path / "odd.wav", np.full(8000, np.nan), 8000, "FLOAT")
    (tmp_path / "large.wav").write_bytes(bytes(1_000_001))
    for name, said in (
        ("text", "^The sound to be like cannot be"), ("silent", "^The sound to be like is silent"),
        ("long", "^The sound to be like is longer than 6 s"), ("odd", "^The sound to be like holds numbers"),
        ("large", "at most 1 MB"), ("gone", "^This sound is no longer kept"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said) as told:
            studio.accept_sound(session, str(tmp_path / f"{name}.wav"))
        assert str(tmp_path) not in str(told.value)
    studio.leave("a")
    assert not Path(like).exists()


def test_parts_that_are_none_are_refused(studio: Studio, video: Path, tmp_path: Path) -> None:
    session = studio.session("a")
    chosen = choices(steps=1)
    with pytest.raises(ValueError, match="no longer kept"):
        studio.remake(session, 1, 1, 0, 1, chosen)
    number = made(studio.make(session, upload(video, tmp_path), chosen)).number
    for begin, end in ((2.0, 1.0), (1.0, 1.0), (3.5, 4.0), (-1.0, 2.0), (math.nan, 1.0), (None, None), ("0", "1")):
        with pytest.raises(ValueError, match=r"part|From|To"):
            studio.remake(session, number, 1, begin, end, chosen)
    with pytest.raises(ValueError, match="Take must be"):
        studio.remake(session, number, 2, 0, 1, chosen)
    made(studio.remake(session, number, 1, 2.5, 1e300, chosen))  # the end is the video's end


def test_uploads_are_checked(studio: Studio, tmp_path: Path) -> None:
    session = studio.session("a")
    (tmp_path / "text.mp4").write_text("<svg onload=alert(1)>")
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(1_000_001))
    long = write_noise(tmp_path / "long.mp4", 7.0, fps=2)
    for path, said in (
        (tmp_path / "text.mp4", "This file cannot be"),
        (large, "at most 1 MB"),
        (long, "is 7 s long; at most 6 s"),
    ):
        with pytest.raises(ValueError, match=said):
            studio.accept(session, str(path))
    with pytest.raises(ValueError, match="Choose a video first"):
        studio.accept(session, None)
    with pytest.raises(ValueError, match="no longer kept"):
        studio.accept(session, str(tmp_path / "gone.mp4"))
    assert list(session.folder.iterdir()) == []


def test_a_session_has_one_job(studio: Studio, video: Path, tmp_path: Path) -> None:
    block = studio.jobs.submit(until_stopped)
    session, path = studio.session("a"), upload(video, tmp_path)
    waiting = studio.make(session, path, choices())
    assert studio.jobs.before(waiting) == 1
    with pytest.raises(ValueError, match="last job"):
        studio.make(session, path, choices())
    waiting.cancel()
    block.cancel()
    made(studio.make(session, path, choices(steps=1)))


def test_a_cancelled_job_leaves_nothing(studio: Studio, video: Path, tmp_path: Path) -> None:
    session = studio.session("a")
    job = studio.make(session, upload(video, tmp_path), choices(steps=64, candidates=4))
    deadline = time.monotonic() + WAIT_S
    while not 0 < job.share < 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    job.cancel()
    job.future.exception(WAIT_S)
    with pytest.raises(Stopped):
        job.result()
    assert session.results == []
    assert sorted(path.name for path in session.folder.iterdir()) == ["video-1", "video-1.jpg"]


def test_files_go_with_the_session(studio: Studio, video: Path, tmp_path: Path) -> None:
    session, path = studio.session("a"), upload(video, tmp_path)
    made(studio.make(session, path, choices(steps=1)))
    assert list(session.folder.iterdir())
    studio.leave("a")
    assert not session.folder.exists()
    assert not Path(path).exists()
    assert studio.session("a") is not session
    studio.leave("never there")


def test_a_session_that_is_left_while_it_works_stops_and_goes(studio: Studio, video: Path, tmp_path: Path) -> None:
    session = studio.session("a")
    job = studio.make(session, upload(video, tmp_path), choices(steps=64, candidates=4))
    studio.leave("a")
    wait([job.future], WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while session.folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not session.folder.exists()


def test_unused_sessions_are_forgotten_and_their_number_is_bounded(studio: Studio) -> None:
    old = studio.session("old")
    old.used_s -= 1001
    assert studio.session("new").folder.exists()
    assert not old.folder.exists()
    for number in range(100):
        studio.session(str(number))
    assert len(list(studio.folder.iterdir())) == 64


def test_who_works_is_neither_unused_nor_makes_room_and_is_unused_from_its_end_on(studio: Studio) -> None:
    session, begun = studio.session("works"), time.monotonic()
    session.job = studio._submit(session, until_stopped)
    session.used_s -= 5000
    for number in range(100):
        studio.session(str(number))
    studio.sweep()
    assert studio.find("0") is None
    assert session.folder.exists()
    session.job.cancel()
    wait([session.job.future], WAIT_S)
    studio.sweep()
    assert studio.find("works") is session
    assert session.used_s >= begun
    session.used_s -= 1001
    studio.sweep()
    assert studio.find("works") is None
    assert not session.folder.exists()


def test_the_oldest_results_make_room(
    studio: Studio, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specmaskfoley.web.studio._MOST_RESULTS", 2)
    session, path = studio.session("a"), upload(video, tmp_path)
    for _ in range(3):
        last = made(studio.make(session, path, choices(steps=1)))
    assert [one.number for one in session.results] == [2, 3]
    assert not list(session.folder.glob("foley-1-*"))
    assert len(list(session.folder.glob("foley-3-*"))) == 4
    assert session.result(3) is last
    with pytest.raises(ValueError, match="no longer kept"):
        session.result(1)


def test_threads_get_one_session_for_one_key(studio: Studio) -> None:
    found: list[Session] = []
    threads = [threading.Thread(target=lambda: found.append(studio.session("a"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(session) for session in found}) == 1


def test_what_broken_uploads_leave_is_swept(tmp_path: Path) -> None:
    sweep(tmp_path / "before the first upload", 60)
    for name in ("old", "new", "a/old", "a/new"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        if path.name == "old":
            os.utime(path, (time.time() - 61,) * 2)
    sweep(tmp_path, 60)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "a/new", "new"]
