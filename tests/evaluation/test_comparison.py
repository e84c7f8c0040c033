"""The comparison of systems: one list of clips, nothing judged twice, the same numbers whatever the company."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from helpers.small_judges import make_place, write_clip, write_sound

from specmaskfoley.evaluation.agreement import Found
from specmaskfoley.evaluation.comparison import ComparedFiles, compare_systems, derangement, score_as_published
from specmaskfoley.evaluation.judging import judging
from specmaskfoley.judges.trained import load_panel
from specmaskfoley.settings import Evaluate, Params

CLIPS = [f"clip{number:02d}" for number in range(21)]  # more than one batch, and a bit
SETTINGS = Evaluate(seeds=1, resamples=20, min_coverage=0.9, onset_tolerance_s=0.1, pictures=0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    root = tmp_path_factory.mktemp("place")
    params = make_place(root)
    for number, clip in enumerate(CLIPS):
        write_clip(root / "videos" / f"{clip}.mp4", number)
        for take in range(2):
            write_sound(root / f"take-{take}" / f"{clip}.flac", 1000 * (take + 1) + number)
    return root, params


@pytest.fixture(autouse=True)
def _inside(place: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place[0])
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # a memory of its own


def folder(root: Path, name: str, suffix: str, clips: list[str] = CLIPS) -> Found:
    return Found({clip: root / name / f"{clip}{suffix}" for clip in clips}, {})


def entries(root: Path, clips: list[str] = CLIPS) -> ComparedFiles:
    videos = folder(root, "videos", ".mp4", clips)
    takes = [folder(root, f"take-{take}", ".flac", clips) for take in range(2)]
    events = {clip: (0.5, 1.0) if int(clip[4:]) % 3 else None for clip in clips}
    return ComparedFiles(videos, videos, {"ours": takes, "echo": [videos]}, 1.0, events=events, shuffled="ours")


class Counting:
    """How often the judges were asked for each kind of thing."""

    def __init__(self, panel: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        for name in ("hear", "see", "compare"):
            monkeypatch.setattr(panel, name, self._counted(name, getattr(panel, name)))

    def _counted(self, name, function):
        def call(*arguments):
            self.calls[name] += 1
            return function(*arguments)

        return call


def test_a_system_that_repeats_the_truth_gets_the_truths_numbers(place):
    root, params = place
    with judging(load_panel(params, torch.device("cpu")), params) as judge:
        made = compare_systems(judge, entries(root), SETTINGS, seed=0)
    scores = made.scores()
    assert list(scores) == ["ground_truth", "ours", "echo", "shuffled"]
    assert scores["echo"] == scores["ground_truth"]
    assert scores["echo"]["fd"] == pytest.approx(0, abs=1e-6)
    assert scores["echo"]["kl"] == 0
    assert scores["ours"]["fd"] > 0
    assert scores["ours"]["kl"] > 0
    assert made.counts() == {name: {"clips": 21, "coverage": 1.0, "onset_clips": 14} for name in scores}
    assert scores["shuffled"]["kl"] != scores["ours"]["kl"]

    spread = made.intervals(50, seed=0)
    first = replace(made, takes={"ours": made.takes["ours"][:1], "shuffled": made.takes["shuffled"]})
    for name in ("fd", "fad"):  # the same set of sounds in another order
        assert first.scores()["ours"][name] == first.scores()["shuffled"][name]
        assert first.intervals(20, seed=0)["ours"][name] == first.intervals(20, seed=0)["shuffled"][name]
    truth = spread["ground_truth"]
    assert truth["kl"] == {"low": 0.0, "high": 0.0, "sd": None}
    assert all(0 <= row["onset_f1"]["low"] <= row["onset_f1"]["high"] <= 1 for row in spread.values())
    for name in ("fd", "fad", "kl", "ib", "desync", "onset_f1"):
        interval = spread["ours"][name]
        assert interval["low"] < scores["ours"][name] < interval["high"], name
        assert interval["sd"] is not None
        assert spread["echo"][name]["sd"] is None
    assert spread["ours"]["fd"]["sd"] > 0

    rows = made.per_clip({clip: "bell" for clip in CLIPS})
    assert len(rows) == 4 * 21
    ours = [row for row in rows if row["system"] == "ours"]
    assert np.mean([row["kl"] for row in ours]) == pytest.approx(scores["ours"]["kl"], rel=1e-3)
    assert sum("onset_f1" in row for row in ours) == 14


def test_nothing_is_judged_twice(place, monkeypatch):
    root, params = place
    found = []
    for clips in (CLIPS[:18], CLIPS, CLIPS):
        with judging(load_panel(params, torch.device("cpu")), params) as judge:
            counting = Counting(judge.panel, monkeypatch)
            made = compare_systems(judge, entries(root, clips), SETTINGS, seed=0)
        found.append((counting.calls, made.scores()))
    assert found[0][0]["see"] == 2  # batches of 16
    assert found[1][0]["see"] == 1
    assert found[2][0] == {}
    assert found[2][1] == found[1][1]


def test_numbers_do_not_depend_on_what_was_judged_before(place, tmp_path, monkeypatch):
    root, params = place
    scores = []
    for first in ([], CLIPS[5:12]):
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / f"after{len(first)}"))
        with judging(load_panel(params, torch.device("cpu")), params) as judge:
            if first:
                compare_systems(judge, entries(root, first), SETTINGS, seed=0)
            scores.append(compare_systems(judge, entries(root), SETTINGS, seed=0).scores())
    assert scores[0] == scores[1]


def test_other_judges_do_not_remember(place, tmp_path):
    root, params = place
    with judging(load_panel(params, torch.device("cpu")), params) as judge:
        compare_systems(judge, entries(root, CLIPS[:3]), SETTINGS, seed=0)
    other = params.model_copy(update={"audio": params.audio.model_copy(update={"duration_s": 1.9})})
    with judging(load_panel(params, torch.device("cpu")), other):
        pass
    assert len(list(tmp_path.glob(".work/judged-*"))) == 2


def test_a_subset_is_scored_like_a_set_of_its_own(place):
    root, params = place
    with judging(load_panel(params, torch.device("cpu")), params) as judge:
        whole = compare_systems(judge, replace(entries(root), shuffled=None), SETTINGS, seed=0)
        alone = compare_systems(judge, replace(entries(root, CLIPS[4:17]), shuffled=None), SETTINGS, seed=0)
    part = whole.subset(frozenset([*CLIPS[4:17], "unknown"]))
    assert part is not None
    assert part["clips"] == 13
    assert part["hash"] == alone.agreement.hash
    for system, row in alone.scores().items():
        assert part["scores"][system] == pytest.approx(row, rel=1e-5)
    assert whole.subset(frozenset(["unknown"])) is None


def test_without_videos_what_needs_them_is_left_out(place):
    root, params = place
    with judging(load_panel(params, torch.device("cpu")), params) as judge:
        made = compare_systems(judge, replace(entries(root), videos=None), SETTINGS, seed=0)
    assert all("ib" not in row and "desync" not in row for row in made.scores().values())
    assert all("fd" in row and "kl" in row for row in made.scores().values())


def test_as_published_counts_each_metric_on_its_own_files(place, tmp_path):
    """One clip has no sound, one sound has no clip, one is too short: as av-benchmark takes them."""
    root, params = place
    ours = folder(root, "take-0", ".flac", CLIPS[1:])
    write_sound(tmp_path / "extra.flac", 5)
    write_sound(tmp_path / "short.flac", 6, seconds=1.5)
    ours.files.update(extra=tmp_path / "extra.flac", clip05=tmp_path / "short.flac")
    with judging(load_panel(params, torch.device("cpu")), params) as judge:
        scores, counts = score_as_published(judge, replace(entries(root), systems={"ours": [ours]}, shuffled=None))
        strict = SETTINGS.model_copy(update={"min_coverage": 0.5})
        one = compare_systems(judge, replace(entries(root), systems={"ours": [ours]}, shuffled=None), strict, 0)
    assert counts["ours"] == {"fad_clips": 21, "kl_clips": 20, "ib_clips": 20, "desync_clips": 19}
    assert len(one.agreement.clips) == 19
    row, strictly = scores["ours"], one.scores()["ours"]
    assert row["fad"] != strictly["fad"]
    assert row["desync"] == strictly["desync"]  # of the same clips


@pytest.mark.slow
def test_memory_grows_by_the_arrays_alone(place, tmp_path):
    """What is held of a clip are some thousand numbers, not its sound."""
    _, params = place
    for number in range(40):
        write_sound(tmp_path / "few" / f"{number}.flac", number, seconds=20.0)
    peaks = []
    for count in (40, 1200):
        paths = [tmp_path / "many" / f"{number}.flac" for number in range(count)]
        for number, path in enumerate(paths):
            path.parent.mkdir(exist_ok=True)
            content = (tmp_path / "few" / f"{number % 40}.flac").read_bytes()
            path.write_bytes(content + bytes([number % 256, number // 256]))  # other files to the cache
        with judging(load_panel(params, torch.device("cpu")), params) as judge:
            judge.listen(paths[:40])
            before = psutil.Process().memory_info().rss
            judge.listen(paths)
            peaks.append(psutil.Process().memory_info().rss - before)
    one_sound = 4 * params.audio.num_samples
    assert peaks[1] < 1200 * one_sound / 4, f"{peaks[1] / 1e6:.0f} MB more after 1200 sounds"


def test_no_clip_keeps_its_place():
    for count in (2, 3, 50):
        places = derangement(count, 0)
        assert sorted(places) == list(range(count))
        assert all(places != np.arange(count))


def test_judges_compute_in_plain_float32(place: tuple[Path, Params]) -> None:
    allowed = torch.backends.cudnn.allow_tf32
    with judging(load_panel(place[1], torch.device("cpu")), place[1]):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == allowed


def test_few_clips_are_told(place):
    root, params = place
    with judging(load_panel(params, torch.device("cpu")), params) as judge:
        few = compare_systems(judge, entries(root, CLIPS[:4]), SETTINGS, 0).summary()
    assert few["warnings"][0] == "4 clips are few: below 30 no system is marked as best."
    assert few["warnings"][1].startswith("FD has 4 vectors for a covariance of 8 features")
    assert not few["ranked"]
