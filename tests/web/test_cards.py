"""What the page shows of a sound, in words and pictures, and the videos that it offers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.untrained import write_noise
from matplotlib.image import imread
from PIL import Image

from specmaskfoley.clips.world import LABELS, render_clip
from specmaskfoley.foley import Foley
from specmaskfoley.foley.choosing import Verdict
from specmaskfoley.foley.knowledge import Knowledge
from specmaskfoley.storage.tables import USABLE_SCHEMA, write_table
from specmaskfoley.web import cards
from specmaskfoley.web.examples import examples
from specmaskfoley.web.pictures import write_strip
from specmaskfoley.web.studio import Choices, Limits, Result, Studio

WAIT_S = 240


@pytest.fixture(scope="module")
def foley(model: Path) -> Foley:
    return Foley.load(model)


@pytest.fixture
def studio(foley: Foley, tmp_path: Path) -> Iterator[Studio]:
    studio = Studio(foley, tmp_path / "sessions", Limits(), examples(foley.params, foley.home, tmp_path / "examples"))
    yield studio
    studio.close()


def make(studio: Studio, path: Path, **changed: Any) -> Result:
    chosen = {"text": "", "seed": 0, "candidates": 2, "steps": 1, "scale": 1, "keep": False} | changed
    job = studio.make(studio.session("a"), str(path), Choices.checked(studio.defaults, **chosen))
    job.future.result(WAIT_S)
    result: Result = job.result()
    return result


def at(result: Result, *peaks: float) -> Result:
    """The result with tones of these amplitudes as its sounds."""
    wave = np.sin(np.arange(20_000) * 0.3).astype(np.float32)
    sounds = zip(result.takes, peaks, strict=True)
    return replace(
        result, takes=[replace(made, take=replace(made.take, waveform=peak * wave)) for made, peak in sounds]
    )


def test_hardly_any_sound_is_no_success(studio: Studio) -> None:
    result = make(studio, studio.examples[0].path)
    loud, mixed, silent = at(result, 0.5, 0.5), at(result, 0.5, 0.001), at(result, 0.0005, 0.001)
    assert cards.done(loud).startswith('<div class="status good"')
    assert 'class="remark"' not in cards.takes(loud)
    assert "badge warn" not in cards.takes(loud)
    assert cards.done(mixed).startswith('<div class="status warn"')
    assert f"Done: 2 takes of {loud.duration_s:.2f} s; take 2 is nearly silent." in cards.done(mixed)
    assert cards.takes(mixed).count('<span class="badge warn">nearly silent</span>') == 1
    said = cards.done(silent)
    assert said.startswith('<div class="status warn"')
    assert "2 takes of 0.91 s, nearly silent: the loudest moment is at -63 dBFS" in said, said
    assert "try another text" in said
    assert cards.takes(silent).count('<p class="remark">Nearly silent: the loudest moment is at') == 2
    assert "fits best" not in cards.takes(silent)


def test_scores_are_words_with_a_reason_and_an_explanation(studio: Studio) -> None:
    result = at(make(studio, studio.examples[0].path), 0.5, 0.5)
    words = [Verdict("in time (0.08 s)", "0.44", 0.4, True, "more in time <than> the next")]
    words.append(Verdict("about chance (1.10 s)", "0.41", -0.1, False, ""))
    takes = [replace(made, take=replace(made.take, verdict=one)) for made, one in zip(result.takes, words, strict=True)]
    shown = cards.takes(replace(result, takes=takes))
    first, second = shown.split("<article")[1:]
    for told in ("in time (0.08 s)", "fits best", "More in time &lt;than&gt; the next.", "What this means", "0.40"):
        assert told in first
    assert "about chance (1.10 s)" in second
    assert "fits best" not in second
    assert "The judges are networks of their own" in second


def test_the_judges_are_doubted_where_the_video_is_no_example(studio: Studio, tmp_path: Path) -> None:
    doubt = "of other videos their numbers say little"
    clip = write_noise(tmp_path / "clip.mp4", 1.0)
    assert doubt not in cards.takes(make(studio, studio.examples[1].path))
    shown = cards.takes(make(studio, clip))
    assert doubt in shown
    assert 'download="clip-2-take-1.flac"' in shown
    assert doubt not in cards.takes(make(studio, clip, candidates=1)), "a single take is not judged"


def test_spectrograms_share_one_scale(studio: Studio, tmp_path: Path) -> None:
    result = at(make(studio, studio.examples[0].path), 1.0, 0.01)
    loud, quiet = (studio._spectrogram(made.take) for made in result.takes)
    assert loud.max() == pytest.approx(0, abs=3), "a tone at full scale is 0 dB"
    assert loud.max() - quiet.max() == pytest.approx(40, abs=0.5)
    for name, values in (("loud", loud), ("quiet", quiet), ("black", np.full((4, 4), -80.0))):
        write_strip(tmp_path / f"{name}.png", values)
    loud_picture, quiet_picture, black = (
        imread(tmp_path / f"{name}.png")[..., :3] for name in ("loud", "quiet", "black")
    )
    assert loud_picture.max() > 0.95
    assert 0.3 < quiet_picture.max() < 0.9, "not stretched to its own maximum"
    assert black.max() < 0.05


def test_a_model_of_many_sounds_has_them_searched_and_one_of_unknown_sounds_says_so() -> None:
    many = cards.known(Knowledge("a model", tuple(f"sound <{number}>" for number in range(300)), True))
    assert 'type="search"' in many
    assert "Trained on 300 sounds (other texts work, too):" in many
    assert many.count("<li>") == 300
    assert "sound &lt;299&gt;" in many
    assert 'type="search"' not in cards.known(Knowledge("a model", LABELS, False))
    unknown = cards.known(Knowledge("a <model>", (), False))
    assert "Which sounds a &lt;model&gt; was trained on is not known." in unknown
    assert "<button" not in unknown


def test_examples_of_the_world_are_new_silent_clips_of_different_sounds(foley: Foley, studio: Studio) -> None:
    assert len({one.name for one in studio.examples}) == len(studio.examples) == 4
    params = foley.params
    for one in studio.examples:
        assert one.name in foley.knowledge.words
        assert one.info.audio_rate is None
        assert one.info.duration_s == pytest.approx(params.audio.duration_s, abs=0.1)
        assert imread(one.poster).std() > 10
    shown = Image.open(studio.examples[0].poster)
    for split in ("train", "val", "test", "examples"):
        clip = render_clip(
            seed=params.seed, split=split, index=0, duration_s=params.audio.duration_s, fps=params.world.fps,
            sample_rate=params.audio.sample_rate,
        )  # fmt: skip
        expected = Image.fromarray(clip.frames[0]).resize(shown.size)
        difference = np.abs(np.asarray(shown, float) - np.asarray(expected, float)).mean()
        assert (difference < 10) == (split == "examples"), (split, difference)


def test_examples_of_other_models_are_test_clips_of_the_project(foley: Foley, tmp_path: Path) -> None:
    params = foley.params
    folder = params.data.model_copy(update={"source": "folder"})
    paths = params.paths.model_copy(update={"usable": "data/usable.parquet"})
    params = params.model_copy(update={"data": folder, "paths": paths})
    assert examples(params, tmp_path, tmp_path / "none") == [], "an exported model has no clips"
    (tmp_path / "data").mkdir()
    write_noise(tmp_path / "data" / "clip.mp4", 1.0)
    rows = [row("a", "train", "dog"), row("b", "test", "cat"), row("c", "test", "../cow"), row("d", "test", "cat")]
    rows.append(row("e", "test", "gone") | {"path": "data/gone.mp4"})
    write_table(tmp_path / "data" / "usable.parquet", rows, USABLE_SCHEMA)
    found = examples(params, tmp_path, tmp_path / "some")
    assert [one.name for one in found] == ["../cow", "cat"]
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == [
        "0--cow.jpg", "0--cow.mp4", "1-cat.jpg", "1-cat.mp4",
    ]  # fmt: skip
    shutil.rmtree(tmp_path / "some")
    assert (tmp_path / "data" / "clip.mp4").exists()


def row(clip_id: str, split: str, label: str) -> dict[str, Any]:
    told = {"source": "folder", "state": "ready", "reason": "", "events": None}
    return {"clip_id": clip_id, "path": "data/clip.mp4", "label": label, "split": split} | told
