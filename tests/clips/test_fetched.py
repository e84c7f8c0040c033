"""What is fetched, what is tried again, and what a kill in between does to it."""

from __future__ import annotations

import os
import re
import threading
import time
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specmaskfoley.clips.fetched import ACCESS, LASTING, PASSING, FetchedClips
from specmaskfoley.clips.vggsound import VggSoundClip, Wanted
from specmaskfoley.storage.tables import CLIP_LIST_SCHEMA, LISTED

CLIPS = [VggSoundClip(f"video{number:06d}", number, "dog, barking", "train") for number in range(8)]
IDS = [clip.clip_id for clip in CLIPS]
ITEMS = [Wanted(clip) for clip in CLIPS]
ENDS = (LISTED, *PASSING, *ACCESS, *LASTING)


class KilledError(BaseException):
    """Stands for whatever ends a process in the middle."""


@pytest.fixture
def store(tmp_path):
    """A function that opens the same folder once more."""

    def make(**options):
        return FetchedClips(tmp_path / "vggsound", **{"source": "youtube", **options})

    return make


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1769860800")


def put(store, clip_id, content=b"video"):
    store.path(clip_id).parent.mkdir(parents=True, exist_ok=True)
    store.path(clip_id).write_bytes(content)


def end(store, clip_id, state):
    """Fetch a clip, or fail to."""
    if state == LISTED:
        put(store, clip_id)
    store.conclude(clip_id, state, "" if state == LISTED else f"because {state}")


def run(store, ends, tried=None, stop_after=None, at="between"):
    """Try what is open, as a source does; returns the ids tried (also in `tried`, when it is cut short) and rows."""
    tried = [] if tried is None else tried
    with store:
        for number, clip in enumerate(store.to_fetch(CLIPS)):
            if number == stop_after:
                if at == "before the line" and ends[clip.clip_id] == LISTED:
                    put(store, clip.clip_id)
                    tried.append(clip.clip_id)
                raise KilledError
            end(store, clip.clip_id, ends[clip.clip_id])
            tried.append(clip.clip_id)
        return tried, store.rows(ITEMS)


def test_a_first_run(store, tmp_path):
    ends = dict(zip(IDS, ENDS, strict=True))
    tried, rows = run(store(), ends)
    assert tried == IDS
    assert [row["state"] for row in rows] == list(ENDS)
    assert [row["reason"] for row in rows] == ["", *(f"because {state}" for state in ENDS[1:])]
    assert {(row["tries"], row["tried_at"], row["source"]) for row in rows} == {(1, "2026-01-31T12:00:00Z", "youtube")}
    for row in rows:
        assert re.fullmatch(rf"{tmp_path.as_posix()}/vggsound/clips/[0-9a-f]{{2}}/{row['clip_id']}\.mp4", row["path"])
    assert pa.Table.from_pylist(rows, CLIP_LIST_SCHEMA).num_rows == 8


def test_the_run_after_a_finished_one_tries_what_may_change(store):
    ends = dict(zip(IDS, ENDS, strict=True))
    run(store(), ends)
    tried, rows = run(store(), ends)
    assert [ends[name] for name in tried] == list(PASSING)
    assert {row["state"]: row["tries"] for row in rows} == {state: 2 if state in PASSING else 1 for state in ENDS}
    tried, rows = run(store(), dict.fromkeys(IDS, LISTED))
    assert [ends[name] for name in tried] == list(PASSING)
    assert [row["tries"] for row in rows if row["clip_id"] in tried] == [3, 3]
    assert [(row["state"], row["reason"]) for row in rows if row["clip_id"] in tried] == [(LISTED, "")] * 2
    assert run(store(), ends)[0] == []


@pytest.mark.parametrize("state", LASTING + ACCESS)
def test_fetch_again_names_more(store, state):
    ends = dict(zip(IDS, ENDS, strict=True))
    run(store(), ends)
    tried, _ = run(store(again=(state,)), ends)
    assert {ends[name] for name in tried} == {*PASSING, state}


def test_other_access_may_open_what_was_closed(store):
    ends = dict(zip(IDS, ENDS, strict=True))
    run(store(), ends)
    tried, _ = run(store(access="cookies.txt"), ends)
    assert {ends[name] for name in tried} == {*PASSING, *ACCESS}
    tried, _ = run(store(access="cookies.txt"), ends)
    assert {ends[name] for name in tried} == set(PASSING)


def test_another_source_may_have_it(store):
    ends = dict(zip(IDS, ENDS, strict=True))
    run(store(), ends)
    tried, rows = run(store(source="archive"), dict.fromkeys(IDS, LISTED))
    assert [ends[name] for name in tried] == list(ENDS[1:])
    assert [row["source"] for row in rows] == ["youtube", *["archive"] * 7]


@pytest.mark.parametrize("state", LASTING)
def test_fetch_again_counts_after_a_run_that_was_killed(store, state):
    ends = dict(zip(IDS, ENDS, strict=True))
    with pytest.raises(KilledError):
        run(store(), ends, stop_after=7)
    tried, _ = run(store(again=(state,)), ends)
    assert state in {ends[name] for name in tried}
    assert len(tried) == len({*PASSING, state, ENDS[7]})


def test_unknown_state_to_try_again(tmp_path):
    with pytest.raises(ValueError, match=r"fetch\.again=delted, lost: expected any of .*private, removed"):
        FetchedClips(tmp_path / "new", source="youtube", again=("lost", "removed", "delted"))
    assert not (tmp_path / "new").exists()


outcomes = st.lists(st.sampled_from(ENDS), min_size=8, max_size=8).map(lambda ends: dict(zip(IDS, ends, strict=True)))
cuts = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["between", "before the line"])), max_size=4)


@pytest.mark.kill
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=outcomes, second=outcomes, kills=cuts)
def test_killed_runs_are_together_one_run(tmp_path_factory, first, second, kills):
    def make():
        folder = tmp_path_factory.mktemp("vggsound")

        def store():
            return FetchedClips(folder, source="youtube", again=("removed",))

        run(store(), first)
        return store

    undisturbed, expected = run(make()(), second)
    store, tried = make(), []
    for stop_after, at in kills:
        try:
            _, rows = run(store(), second, tried, stop_after, at)
            break
        except KilledError:
            continue
    else:
        _, rows = run(store(), second, tried)
    assert tried == undisturbed
    for row in (*rows, *expected):
        row["path"] = row["path"].split("/clips/")[1]
    assert rows == expected


def test_a_raised_run_goes_on(store):
    ends = dict(zip(IDS, ENDS, strict=True))
    with pytest.raises(KilledError):
        run(store(), ends, stop_after=4)
    tried, rows = run(store(), ends)
    assert tried == IDS[4:]
    assert {row["tries"] for row in rows} == {1}
    with pytest.raises(KilledError):
        run(store(), ends, stop_after=1)
    tried, rows = run(store(), ends)
    assert tried == IDS[2:3]
    assert [row["tries"] for row in rows] == [1, 2, 2, 1, 1, 1, 1, 1]


def test_a_file_without_its_line_is_fetched(store):
    with store() as first:
        put(first, IDS[3])
        assert first.to_fetch(CLIPS[2:4]) == [CLIPS[2]]
        row = first.rows(ITEMS)[3]
    assert (row["state"], row["tries"], row["tried_at"]) == (LISTED, 1, "2026-01-31T12:00:00Z")
    with store() as second:
        assert second.rows(ITEMS)[3] == row


def test_a_file_after_a_failure_without_its_line_is_fetched(store):
    run(store(), dict.fromkeys(IDS, "failed"))
    with store() as second:
        put(second, IDS[3])
        assert CLIPS[3] not in second.to_fetch(CLIPS)
        row = second.rows(ITEMS)[3]
    assert (row["state"], row["reason"], row["tries"]) == (LISTED, "", 2)


def test_a_deleted_file_is_fetched_again(store):
    run(store(), dict.fromkeys(IDS, LISTED))
    with store() as second:
        second.path(IDS[5]).unlink()
    tried, rows = run(store(), dict.fromkeys(IDS, LISTED))
    assert tried == [IDS[5]]
    assert [row["tries"] for row in rows] == [1, 1, 1, 1, 1, 2, 1, 1]
    tried, rows = run(store(), dict.fromkeys(IDS, LISTED))
    assert tried == []


def test_the_time_is_utc(store, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        with store() as opened:
            opened.conclude(IDS[0], "removed", "gone")
            tried_at = opened.rows(ITEMS)[0]["tried_at"]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", tried_at)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(tried_at)).total_seconds()) < 60


def test_what_was_not_tried_has_no_time(store):
    with store() as opened:
        row = opened.rows(ITEMS)[0]
    assert (row["tried_at"], row["tries"], row["source"]) == (None, None, "youtube")


def test_duplicates_keep_their_state(store):
    run(store(), dict.fromkeys(IDS, LISTED))
    duplicate = Wanted(CLIPS[0], "duplicate", "its video is also in test")
    with store() as opened:
        row = opened.rows([duplicate])[0]
    assert (row["state"], row["reason"]) == ("duplicate", "its video is also in test")
    assert (row["tried_at"], row["tries"]) == (None, None)


def test_damaged_outcomes_are_an_error_that_frees_the_folder(store, tmp_path):
    run(store(), dict.fromkeys(IDS, "removed"))
    outcomes = tmp_path / "vggsound" / "outcomes.sqlite"
    whole = outcomes.read_bytes()
    outcomes.write_bytes(b"nonsense\n" + whole)
    broken = store()
    with pytest.raises(ValueError, match=r"outcomes\.sqlite: cannot be read or written .* delete it"):
        broken.__enter__()
    outcomes.write_bytes(whole)
    after = threading.Thread(target=run, args=(store(), {}), daemon=True)
    after.start()
    after.join(60)
    assert not after.is_alive()


def test_one_run_at_a_time(store, capsys):
    order = []

    def second():
        with store():
            order.append("second")

    with store():
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 60
        while "waiting for it" not in (said := capsys.readouterr().out) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "another run fetches into" in said
        time.sleep(0.1)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_many_threads_conclude(store):
    clips = [VggSoundClip(f"thread{number:05d}", 0, "dog", "train") for number in range(400)]
    with store() as opened:

        def work(part):
            for clip in part:
                opened.conclude(clip.clip_id, "removed", "é" * 200)

        threads = [threading.Thread(target=work, args=(clips[n::8],)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with store() as opened:
        assert opened.to_fetch(clips) == []
        assert {opened.tries(clip.clip_id) for clip in clips} == {1}


def test_ids_that_begin_with_a_dash(store, tmp_path):
    clip = VggSoundClip("--g-f_I2yQ-", 1, "people marching", "test")
    with store() as opened:
        assert opened.to_fetch([clip]) == [clip]
        end(opened, clip.clip_id, LISTED)
        (row,) = opened.rows([Wanted(clip)])
        assert opened.to_fetch([clip]) == []
    assert row["clip_id"] == "--g-f_I2yQ-_000001"
    assert os.path.basename(row["path"]) == "--g-f_I2yQ-_000001.mp4"
    assert re.fullmatch(r"[0-9a-f]{2}", os.path.basename(os.path.dirname(row["path"])))


def test_no_directory_holds_all(store):
    folders = {store().path(f"video{number:06d}_000000").parent for number in range(5000)}
    assert len(folders) == 256
