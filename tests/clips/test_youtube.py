"""Clips from a video site: what is fetched, what is given up and why, against a stand-in that speaks HTTP."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import ROOT
from helpers.video_server import FPS, KINDS, VideoServer, kind_of, make_ids, write_lists

from specmaskfoley.clips import youtube
from specmaskfoley.clips.listing import list_clips
from specmaskfoley.clips.youtube import PASSING, THROTTLED, judge
from specmaskfoley.media.frames import View, read_views
from specmaskfoley.media.probe import probe
from specmaskfoley.media.sound import read_audio
from specmaskfoley.settings import Params

pytest.importorskip("yt_dlp")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = VideoServer(tmp_path_factory.mktemp("videos"))
    yield made
    made.close()


@pytest.fixture
def settings(server, tmp_path, monkeypatch):
    """A function that makes settings with some changes."""
    monkeypatch.chdir(tmp_path)

    def make(ids, start_s=1, **fetch):
        write_lists(tmp_path / "lists", ids, start_s)
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["data"] |= {"source": "youtube", "lists": str(tmp_path / "lists")}
        params["fetch"] |= {"youtube": server.address, "interval_s": 0.0, "retries": 3, "timeout_s": 5.0, **fetch}
        return Params.from_mapping(params)

    return make


def of_kind(*kinds, count=1, seed=1):
    """Ids to which the server does this, so many of each kind."""
    ids = make_ids(6000, seed)
    return [name for kind in kinds for name in [name for name in ids if kind_of(name) == kind][:count]]


def test_every_kind_of_trouble_ends_in_its_state(settings, server):
    ids = of_kind(*KINDS)
    rows = {kind_of(row["clip_id"][:11]): row for row in list_clips(settings(ids))}
    assert set(rows) == set(KINDS)
    judged_later = {"ready", "silent", "no_audio", "short"}  # by stage prepare
    for kind, (state, reason, _) in KINDS.items():
        row = rows[kind]
        assert row["state"] == ("listed" if state in judged_later else state), (kind, row["reason"])
        assert reason in row["reason"] or state in judged_later
        assert (row["reason"] == "") == (row["state"] == "listed")
        assert Path(row["path"]).exists() == (row["state"] == "listed")
        assert row["tries"] == 1
        assert str(server.port) not in row["reason"]
    assert not Path("vggsound/unfinished").exists()
    assert Path("data/clips/README.txt").exists()


def test_the_section_begins_and_ends_where_it_should(settings, server, tmp_path):
    """The square of `ordinary` moves by 3 pixels a frame: where it stands says which frame it is."""
    (name,) = of_kind("ordinary")
    (row,) = [row for row in list_clips(settings([name] * 1, start_s=1)) if row["state"] == "listed"]
    info = probe(row["path"])
    assert info.duration_s == pytest.approx(3.0, abs=1 / FPS)
    # 1 s lies between the frames at 0.96 and 1.04 s
    assert (info.video_start_s, info.audio_start_s) == (pytest.approx(0.04, abs=0.001), pytest.approx(0, abs=0.001))
    whole = tmp_path / "whole.mp4"
    whole.write_bytes(server.videos[server.ordinary(name)])
    view = View(FPS, 20, 48, "stretch", "on_screen")
    cut = read_views(row["path"], [view], start_s=0.04)[view].astype(int)
    true = read_views(whole, [view], start_s=1.04)[view].astype(int)
    later = read_views(whole, [view], start_s=1.04 + 1 / FPS)[view].astype(int)
    assert np.abs(cut - true).mean() < 1 < np.abs(cut - later).mean()
    heard = read_audio(row["path"], sample_rate=16000, num_samples=16000)
    true = read_audio(whole, sample_rate=16000, num_samples=16000, start_s=1.0)
    assert np.corrcoef(heard[2000:14000], true[2000:14000])[0, 1] > 0.98


def test_the_same_video_gives_the_same_file(settings, tmp_path, monkeypatch):
    ids = of_kind("ordinary", "slow", count=3)
    first = [Path(row["path"]).read_bytes() for row in list_clips(settings(ids))]
    (tmp_path / "again").mkdir()
    monkeypatch.chdir(tmp_path / "again")
    assert [Path(row["path"]).read_bytes() for row in list_clips(settings(ids))] == first


def test_a_second_run_tries_only_what_may_have_changed(settings, server):
    ids = of_kind("ordinary", "gone", "always_500", "wrong_bytes")
    rows = {row["clip_id"]: row for row in list_clips(settings(ids))}
    server.requests.clear()
    again = {row["clip_id"]: row for row in list_clips(settings(ids))}
    assert set(server.requests) == {"always_500", "wrong_bytes"}
    for name in rows:
        assert again[name]["tries"] == (2 if kind_of(name[:11]) in server.requests else 1)
    server.requests.clear()
    list_clips(settings(ids, again=["removed"]))
    assert "gone" in server.requests


@pytest.mark.slow
def test_an_address_that_is_refused_everything_stops_and_loses_nothing(settings, server, monkeypatch):
    ids = make_ids(40, seed=5)
    asked = []

    def refuse(self, request, body):
        asked.append(request.path)
        return self._status(request, 429, {"Retry-After": "0"})

    monkeypatch.setattr(VideoServer, "_answer", refuse)
    monkeypatch.setattr(youtube, "_LONGEST_WAIT_S", 0.02)
    with pytest.raises(ValueError, match=r"1\d clips in a row failed .*fetch\.cookies, fetch\.proxy"):
        list_clips(settings(ids, retries=1))
    monkeypatch.undo()
    monkeypatch.chdir(Path(settings(ids).data.lists).parent)
    rows = list_clips(settings(ids))
    assert all(row["tries"] == 1 for row in rows)
    assert {row["state"] for row in rows} > {"listed"}


def test_without_a_network_the_run_ends_soon_and_blames_no_clip(settings):
    ids = of_kind("ordinary", count=6)
    offline = settings(ids, youtube="http://127.0.0.1:9/watch?v={youtube_id}", retries=1000)
    with pytest.raises(
        ValueError, match=r"^data\.source=youtube: the site cannot be reached \(.*fetch\.proxy"
    ) as caught:
        list_clips(offline)
    assert "\n" not in str(caught.value)
    rows = list_clips(settings(ids))
    assert {row["state"] for row in rows} == {"listed"}
    assert {row["tries"] for row in rows} == {1}


def test_workers_wait_together_and_longer_each_time():
    gate, stop = youtube._Gate(0.1), threading.Event()
    gate.close(0)
    first = gate._until
    gate.close(0)
    assert gate._until == first, "one refusal of all is one pause"
    gate.wait(stop)
    gate.close(0)
    assert gate._until - first > 0.1
    gate.close(5)
    gate.opened()
    gate._until = 0
    gate.close(3)
    assert gate._until > youtube.time.monotonic() + 2.9


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        ("ERROR: [youtube] abcdefghijk: Private video. Sign in if you've been granted access to this video", "private"),
        (
            "ERROR: [youtube] abcdefghijk: Join this channel to get access to members-only content like this video",
            "private",
        ),
        ("ERROR: [youtube] abcdefghijk: Video unavailable", "removed"),
        ("ERROR: [youtube] abcdefghijk: Video unavailable. This video has been removed by the uploader", "removed"),
        (
            "ERROR: [youtube] abcdefghijk: Video unavailable. This video is no longer available because the YouTube "
            "account associated with this video has been terminated.",
            "removed",
        ),
        (
            "ERROR: [youtube] abcdefghijk: Video unavailable. This video contains content from X, who blocked it on "
            "copyright grounds",
            "removed",
        ),
        ("ERROR: [youtube] abcdefghijk: This video has been removed for violating YouTube's policy on spam", "removed"),
        (
            "ERROR: [youtube] abcdefghijk: Video unavailable. The uploader has not made this video available in your "
            "country",
            "geo_blocked",
        ),
        (
            "ERROR: [youtube] abcdefghijk: Video unavailable. This video contains content from X, blocked in "
            "your country on copyright grounds",
            "geo_blocked",
        ),
        (
            "ERROR: [youtube] abcdefghijk: Sign in to confirm your age. It may be inappropriate for some users",
            "age_restricted",
        ),
        (
            "ERROR: [youtube] abcdefghijk: Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser",
            THROTTLED,
        ),
        ("ERROR: [youtube] abcdefghijk: Sign in to confirm you're not a bot. Use --cookies", THROTTLED),
        (
            "ERROR: [youtube] abcdefghijk: Video unavailable. This content isn't available, try again later. The "
            "current session has been rate-limited by YouTube for up to an hour",
            THROTTLED,
        ),
        ("ERROR: Unable to download webpage: HTTP Error 429: Too Many Requests (caused by <HTTPError 429>)", THROTTLED),
        ("ERROR: Unable to download webpage: HTTP Error 503: Service Unavailable", PASSING),
        ("ERROR: Unable to download webpage: <urlopen error [Errno 111] Connection refused>", PASSING),
        ("ERROR: [youtube] abcdefghijk: Premieres in 3 hours", PASSING),
        ("[mov,mp4 @ 0x55d0] moov atom not found", "corrupt"),
    ],
)
def test_messages_are_told_apart(message, verdict):
    found, reason = judge(message)
    assert found == verdict
    assert "abcdefghijk" not in reason
    assert "0x55d0" not in reason
    assert not reason.startswith("ERROR")


def test_mistakes_in_the_settings_are_named(settings, tmp_path):
    ids = of_kind("ordinary")
    with pytest.raises(ValueError, match=r"fetch\.cookies='absent\.txt' cannot be read"):
        list_clips(settings(ids, cookies="absent.txt"))
    with pytest.raises(ValueError, match=r"fetch\.proxy='socks5://x'"):
        list_clips(settings(ids, proxy="socks5://x"))
    with pytest.raises(ValueError, match=r"fetch\.again=gone"):
        list_clips(settings(ids, again=["gone"]))
