"""`specmaskfoley evaluate` on the folders that people have: everything odd is named, nothing odd is scored unseen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import ROOT
from helpers.small_judges import RATE, make_place, sound, write_clip, write_sound
from typer.testing import CliRunner

from specmaskfoley.commands.main import app
from specmaskfoley.report.results import read_folder

CLIPS = [f"clip{number:02d}" for number in range(12)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    make_place(root)
    for number, clip in enumerate(CLIPS):
        write_clip(root / "videos" / f"{clip}.mp4", number)
        write_sound(root / "good" / f"{clip}.wav", 500 + number)
    return root


@pytest.fixture
def odd(place: Path, tmp_path: Path) -> Path:
    """A folder of everything that goes wrong."""
    folder = tmp_path / "odd"
    for number, clip in enumerate(CLIPS):
        write_sound(folder / f"{clip}.flac", 100 + number)
    soundfile.write(folder / "clip00.flac", np.zeros(2 * RATE), RATE)
    broken = sound(1)
    broken[77] = np.nan
    (folder / "clip01.flac").unlink()
    soundfile.write(folder / "clip01.wav", broken, RATE, subtype="FLOAT")
    write_sound(folder / "clip02.flac", 2, seconds=1.2)
    write_sound(folder / "clip03.flac", 3, seconds=2.6)
    write_sound(folder / "clip04.flac", 4, rate=16000)
    (folder / "clip05.flac").unlink()
    write_sound(folder / "clip06.wav", 6)
    (folder / "clip07.flac").write_text("this is no sound")
    (folder / "clip08.flac").write_bytes(b"")
    write_sound(folder / "nobody.flac", 9)
    return folder


def run(place: Path, *arguments: object) -> tuple[int, str, str]:
    options = ["evaluate", "--params", str(place / "params.yaml"), "--reference", str(place / "videos")]
    result = CliRunner().invoke(app, [*options, *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_a_folder_that_generate_wrote(place, tmp_path):
    made, out = tmp_path / "made", tmp_path / "result"
    for number, clip in enumerate(CLIPS):
        write_sound(made / f"{clip}.flac", 500 + number)
        write_clip(made / f"{clip}.mp4", number)
        (made / f"{clip}.json").write_text("{}")
    generated = ("--generated", f"ours={made}", "--generated", place / "good", "--reference", made)
    code, _, said = run(place, *generated, "--out", out)
    assert code == 0, said
    result = read_folder(out)
    assert (result.clips.clips, result.clips.excluded) == (12, {})
    assert "desync" in result.scores["ours"]  # the pictures of a reference of this kind are found, too
    for name in ("ours", "good"):  # the sounds that stand there alone in `good`, not those of the videos
        assert result.scores[name]["fd"] == pytest.approx(0, abs=1e-3)


def test_two_systems_in_one_table(place, tmp_path):
    out = tmp_path / "result"
    code, told, _ = run(place, "--generated", f"ours={place / 'good'}", "--generated", place / "videos", "--out", out)
    assert code == 0, told
    result = read_folder(out)
    assert sorted(result.scores) == ["ground_truth", "ours", "videos"]
    assert result.scores["videos"]["kl"] == 0
    assert result.clips.clips == 12
    assert result.clips.hash in told
    assert {"clips", "coverage"} <= set(result.scores["ours"])
    written = json.loads((out / "systems" / "ours.json").read_text())
    assert list(written) == ["fd", "fad", "kl", "isc", "ib", "desync"]  # numbers alone, flat: for dvc metrics show
    assert all(isinstance(value, float) for value in written.values())
    assert (result.clips.profile, result.clips.judges) == ("mini", "mini")
    assert "12 clips of" in told
    assert "| ours |" in told


def test_a_name_again_is_another_take(place, tmp_path):
    for number, clip in enumerate(CLIPS):
        write_sound(tmp_path / "again" / f"{clip}.wav", 900 + number)
    out = tmp_path / "result"
    takes = ["--generated", f"ours={place / 'good'}", "--generated", f"ours={tmp_path / 'again'}"]
    assert run(place, *takes, "--out", out)[0] == 0
    result = read_folder(out)
    assert sorted(result.scores) == ["ground_truth", "ours"]
    assert result.clips.takes == 2
    assert (result.intervals["ours"]["kl"].sd or 0) > 0


def test_everything_odd_is_named(place, odd, tmp_path):
    out = tmp_path / "result"
    code, told, _ = run(place, "--generated", odd, "--generated", place / "good", "--min-coverage", 0.3, "--out", out)
    assert code == 0, told
    clips = json.loads((out / "clips.json").read_text())
    assert {name: reason.split(": ", 1)[1][:20] for name, reason in clips["excluded"].items()} == {
        "clip01": "holds NaN or infinit",
        "clip02": "lasts 1.20 s, at lea",
        "clip05": "no sound of this nam",
        "clip06": "2 files of one name ",
        "clip07": clips["excluded"]["clip07"].split(": ", 1)[1][:20],
        "clip08": clips["excluded"]["clip08"].split(": ", 1)[1][:20],
        "nobody": "the reference has no",
    }
    assert all("corrupt" in clips["excluded"][clip] for clip in ("clip07", "clip08"))
    assert clips["noted"] == {
        "clip00": "odd: silent",
        "clip03": "odd: lasts 2.60 s, most others 2.00 s",
        "clip04": "odd: 16000 Hz, most others 22050 Hz",
    }
    assert clips["clips"] == 6
    assert clips["coverage"] == 0.5
    for clip in (*clips["excluded"], *clips["noted"]):
        assert clip in told


def test_too_few_clips_fail_and_name_what_is_missing(place, odd, tmp_path):
    code, _, error = run(place, "--generated", odd, "--out", tmp_path / "result")
    assert code == 2
    assert error.startswith("error: only 6 of 12 clips (50.0%)")
    assert "clip01: odd: holds NaN" in error
    assert "Traceback" not in error
    assert not (tmp_path / "result").exists()


def test_as_published(place, odd, tmp_path):
    out = tmp_path / "result"
    code, told, _ = run(place, "--generated", odd, "--as-published", "--out", out)
    assert code == 0, told
    row = read_folder(out).scores["odd"]
    # All that can be read: without clip01 (NaN), 05 (missing), 06 (twice), 07, 08 (broken), with nobody.
    assert (row["fad_clips"], row["kl_clips"]) == (8, 7)
    assert row["desync_clips"] == 6  # nor clip02, which is short


def test_sounds_of_another_pattern_are_passed_over(place, tmp_path):
    for number, clip in enumerate(CLIPS):
        write_sound(tmp_path / "both" / f"{clip}.flac", number)
        write_sound(tmp_path / "both" / f"{clip}.wav", number)
    assert run(place, "--generated", tmp_path / "both", "--pattern", "*.flac")[0] == 0
    code, _, error = run(place, "--generated", tmp_path / "both")
    assert code == 2
    assert "2 files of one name (clip00.flac, clip00.wav)" in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--generated", "{place}/nowhere"], "nowhere: not a folder"),
        (["--generated", "{place}/empty"], "no file '*'"),
        (["--generated", "={place}/good"], "NAME=DIR"),
        (["--generated", "a/b={place}/good"], "without / in NAME"),
        (["--generated", "{place}/good", "--out", "{place}/params.yaml"], "params.yaml: is a file; name a folder"),
        (["--generated", "{place}/good", "--out", "{place}/metrics"], "metrics/others/NAME"),
        (["--generated", "ground_truth={place}/good"], "reference's own row"),
        (["--generated", "{place}/good", "--videos", "{place}/good"], "no file '*' that ends in .mp4"),
        (["--generated", "{place}/good", "--duration-s", "8"], "--duration-s 8: the judges of profile mini"),
        (["--generated", "{place}/good", "--profile", "huge"], "profile='huge'"),
        # It builds the official judges before it asks for their files.
        pytest.param(
            ["--generated", "{place}/good", "--profile", "vggsound"], "weights fetch", marks=pytest.mark.official
        ),
    ],
)
def test_a_mistake_is_one_line(place, arguments, told):
    (place / "empty").mkdir(exist_ok=True)
    (place / "weights.lock.yaml").write_bytes((ROOT / "weights.lock.yaml").read_bytes())
    code, _, error = run(place, *(argument.format(place=place) for argument in arguments))
    assert code == 2
    assert told in error
    assert error.count("\n") == 1
