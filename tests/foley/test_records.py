"""A sound made again from its record alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from helpers.untrained import write_noise
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from specmaskfoley.commands.main import app
from specmaskfoley.device import half_dtype
from specmaskfoley.foley import Foley, Take
from specmaskfoley.settings import Sampling

AUTO = half_dtype("auto", torch.device("cpu")) or torch.float32
"""What run.precision=auto means here."""


def changed(model: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The model with other defaults, elsewhere."""
    folder = Path(shutil.copytree(model, target))
    raw = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    raw["paths"] = {name: Path(path).name for name, path in raw["paths"].items()}
    change(raw)
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return folder


def other_defaults(raw: dict[str, Any]) -> None:
    raw["cfg"] = {"scale": 3.0, "mode": "no_video", "start": 0.4}
    raw["sample"] |= {"steps": 7, "gumbel_temperature": 2.0, "schedule": "linear"}
    raw["run"] |= {"precision": "float32" if AUTO is torch.bfloat16 else "bfloat16", "threads": 2}
    raw["profiles"]["mini"]["vocoder"] |= {"iterations": 5, "momentum": 0.5}
    raw["profiles"]["mini"]["video"]["frame_rule"] = "timestamp"


@pytest.fixture(scope="module")
def now(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model after its project's defaults were changed."""
    return changed(model, tmp_path_factory.mktemp("now") / "model", other_defaults)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("videos") / "clip.mp4", 3.0)


@pytest.fixture(scope="module")
def take(foley: Foley, video: Path) -> Take:
    """Made, a part of it made anew, and its band extended."""
    made = foley.generate(video, text="playing drum", seed=3, start=0.3, gumbel_temperature=4.5, schedule="linear")[0]
    made = foley.regenerate(made, only=(1.0, 1.5), seed=9, steps=4)[0]
    return foley.extend_band(made, 3000.0, text="door", scale=2.0)[0]


@pytest.fixture(scope="module")
def record(take: Take, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return take.save(tmp_path_factory.mktemp("results") / "clip").record


@pytest.fixture(autouse=True)
def threads():
    """Other defaults mean other threads, for which the other tests did not ask."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_record_holds_every_setting_that_decides_a_sound(foley: Foley, record: Path):
    held = json.loads(record.read_text(encoding="utf-8"))
    for step in held["history"]:
        assert set(step["sampling"]) == set(Sampling.model_fields), step
    assert held["history"][0]["sampling"] == dict(
        seed=3,
        steps=3,
        scale=1.5,
        mode="multi",
        start=0.3,
        gumbel_temperature=4.5,
        schedule="linear",
        negative_scale=1.0,
        ramp="rising",
        temperature=None,
        top_p=None,
    )
    assert held["history"][1]["sampling"]["mode"] == "no_text_video"
    assert held["settings"]["run"] == {"device": "cpu", "threads": torch.get_num_threads(), "precision": "auto"}
    assert held["settings"]["int8"] is False
    assert held["settings"]["vocoder"] == foley.params.vocoder.model_dump()


@pytest.mark.slow
def test_whatever_the_defaults_are_now_it_is_the_same_sound_to_the_bit(
    foley: Foley, now: Path, record: Path, take: Take, video: Path, tmp_path: Path
):
    loaded = Foley.load(now, record=record)
    assert loaded.generator.sampler.dtype == AUTO  # the other draws the same tokens with networks so small
    for section in ("audio", "video", "encoders", "codec", "backbone", "control", "vocoder"):
        assert getattr(loaded.params, section) == getattr(foley.params, section)
    again = loaded.remake(video)
    np.testing.assert_array_equal(again.waveform, take.waveform)
    np.testing.assert_array_equal(again.tokens, take.tokens)
    assert again.record == take.record
    by_defaults = Foley.load(now).generate(video, text="playing drum", seed=3)[0]
    assert not np.array_equal(by_defaults.waveform[:1000], again.waveform[:1000])
    for path in (record, again.save(tmp_path / "clip").record):
        assert soundfile.info(path.with_suffix(".flac")).frames == len(take.waveform)
    assert (tmp_path / "clip.flac").read_bytes() == record.with_suffix(".flac").read_bytes()


@pytest.mark.parametrize(
    ("section", "setting", "value"),
    [
        ("vocoder", "iterations", 5),
        ("vocoder", "momentum", 0.1),
        ("cfg", "start", 1.0),
        ("sample", "gumbel_temperature", 1.0),
        ("sample", "schedule", "linear"),
    ],
)
def test_each_of_these_defaults_matters_and_is_overruled(
    model: Path, foley: Foley, video: Path, tmp_path: Path, section: str, setting: str, value: Any
):
    def change(raw: dict[str, Any]) -> None:
        (raw if section in raw else raw["profiles"]["mini"])[section][setting] = value

    taken = foley.generate(video, text="playing drum", steps=6)[0]
    saved = taken.save(tmp_path / "clip").record
    folder = changed(model, tmp_path / "model", change)
    assert not np.array_equal(
        Foley.load(folder).generate(video, text="playing drum", steps=6)[0].waveform, taken.waveform
    )
    np.testing.assert_array_equal(Foley.load(folder, record=saved).remake(video).waveform, taken.waveform)


def test_an_edited_file_is_asked_for(foley: Foley, model: Path, video: Path, tmp_path: Path):
    for name, seconds in (("given", 1.0), ("other", 1.5)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(round(16000 * seconds), 0.1), 16000)
    made = foley.regenerate(foley.listen(video, tmp_path / "given.wav"))[0]
    saved = made.save(tmp_path / "clip").record
    again = Foley.load(model, record=saved)
    np.testing.assert_array_equal(again.remake(video, tmp_path / "given.wav").waveform, made.waveform)
    with pytest.raises(ValueError, match=r"give its file, given\.wav"):
        again.remake(video)
    with pytest.raises(ValueError, match=r"other\.wav: not the sound of the record, which is given\.wav"):
        again.remake(video, tmp_path / "other.wav")


def test_a_candidate_is_made_again_without_the_others(foley: Foley, model: Path, video: Path, tmp_path: Path):
    takes = foley.generate(video, candidates=3)
    again = Foley.load(model, record=takes[2].save(tmp_path / "clip.3").record).remake(video)
    np.testing.assert_array_equal(again.waveform, takes[2].waveform)
    assert set(takes[2].record) - set(again.record) == {"judges", "candidates"}


def test_a_record_that_says_nothing_of_the_model_and_the_level_is_read(
    model: Path, record: Path, video: Path, tmp_path: Path
):
    old = json.loads(record.read_text(encoding="utf-8"))
    for name in ("knowledge", "level"):
        assert old.pop(name)
    (tmp_path / "old.json").write_text(json.dumps(old), encoding="utf-8")
    made = Foley.load(model, record=tmp_path / "old.json").remake(video)
    assert made.record["knowledge"]["model"] == "SpecMaskFoley mini"


def test_the_record_has_what_is_said_of_the_last_text(foley: Foley, video: Path):
    first = foley.generate(video, text="hammering nail")[0]
    second = foley.regenerate(first, only=(1.0, 2.0), text="dog barking")[0]
    assert first.record["knowledge"]["remark"] == ""
    assert second.record["knowledge"]["remark"] == foley.knowledge.remark("dog barking") != ""


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two sounds to be like."""
    folder = tmp_path_factory.mktemp("sounds")
    for name, hertz in (("first", 300), ("second", 3000)):
        wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(5 * 16000) / 16000)  # more than two windows
        soundfile.write(folder / f"{name}.wav", wave * (np.arange(len(wave)) % 4000 < 2000), 16000)
    return [folder / "first.wav", folder / "second.wav"]


PARTS = [(0.0, 0.8, "door"), (1.5, 3.0, "playing drum")]


def words_alone(foley: Foley, video: Path, sounds: list[Path]) -> Take:
    return foley.generate(duration_s=4.3, text="door", negative="rain", negative_scale=0.5, seed=3)[0]


def parts(foley: Foley, video: Path, sounds: list[Path]) -> Take:
    return foley.generate(video, text=PARTS, negative="rain", seed=4)[0]


def another_sound(foley: Foley, video: Path, sounds: list[Path]) -> Take:
    return foley.generate(video, like=sounds[0], negative="rain")[0]


def another_sound_alone(foley: Foley, video: Path, sounds: list[Path]) -> Take:
    return foley.generate(duration_s=1.0, like=sounds[0])[0]


def edits(foley: Foley, video: Path, sounds: list[Path]) -> Take:
    made = foley.generate(video, like=sounds[0])[0]
    made = foley.regenerate(made, only=(0.5, 2.5), text=PARTS, negative="dog", seed=2)[0]
    return foley.extend_band(made, 3000.0, like=sounds[1], negative="rain", negative_scale=2.0)[0]


def edits_without_video(foley: Foley, video: Path, sounds: list[Path]) -> Take:
    made = foley.generate(duration_s=3.0, text=PARTS)[0]
    made = foley.regenerate(made, only=[(0.5, 1.0), (2.0, 2.5)], like=sounds[0])[0]
    return foley.extend_band(made, 3000.0, text="door")[0]


def candidate(foley: Foley, video: Path, sounds: list[Path]) -> Take:
    return foley.generate(video, text=PARTS, negative="rain", candidates=3)[-1]


def candidate_without_video(foley: Foley, video: Path, sounds: list[Path]) -> Take:
    takes = foley.generate(duration_s=2.0, text="door", candidates=3, seed=5)
    assert [one.seed for one in takes] == [5, 6, 7]
    return takes[-1]


def own_sound(foley: Foley, video: Path, sounds: list[Path]) -> Take:
    return foley.regenerate(foley.listen(video), only=(0.5, 2.5), text=PARTS, negative="rain")[0]


WORDS = {
    make.__name__: make
    for make in (
        words_alone, parts, another_sound, another_sound_alone, edits, edits_without_video, candidate,
        candidate_without_video, own_sound,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_whatever_was_said_it_is_the_same_sound_to_the_bit(
    foley: Foley, now: Path, video: Path, sounds: list[Path], tmp_path: Path, name: str
):
    made = WORDS[name](foley, video, sounds)
    saved = made.save(tmp_path / "clip").record
    loaded = Foley.load(now, record=saved)
    assert loaded.record is not None
    wanted = {step.like.name for step in loaded.record.history if getattr(step, "like", None)}
    again = loaded.remake(made.video, like=[path for path in reversed(sounds) if path.name in wanted])
    np.testing.assert_array_equal(again.waveform, made.waveform)
    np.testing.assert_array_equal(again.tokens, made.tokens)
    assert again.record["history"] == made.record["history"]
    assert again.record["video"] == made.record["video"]


def test_everything_that_is_said_changes_the_sound(foley: Foley, video: Path, sounds: list[Path]):
    said: list[dict[str, Any]] = [
        {},
        {"text": "door"},
        {"text": "rain"},
        {"text": "door", "negative": "rain"},
        {"text": "door", "negative": "dog"},
        {"text": "door", "negative": "dog", "negative_scale": 3.0},
        {"text": PARTS},
        {"text": PARTS[1:]},
        {"text": [(*PARTS[0][:2], "rain"), PARTS[1]]},
        {"like": sounds[0]},
        {"like": sounds[1]},
        {"like": sounds[1], "negative": "rain"},
    ]
    made = [foley.generate(video, steps=8, **one)[0].tokens for one in said]
    alone = [foley.generate(duration_s=3.0, steps=8, **one)[0].tokens for one in said[1:]]
    for group in (made, alone):
        assert len({tokens.tobytes() for tokens in group}) == len(group)
    plain = foley.generate(video, steps=8, text="door", negative_scale=3.0)[0].tokens
    np.testing.assert_array_equal(plain, made[1], "the weight of nothing changes nothing")


def test_one_part_over_all_windows_is_its_text_to_the_bit(foley: Foley, video: Path):
    for given in ({"video": video}, {"duration_s": 3.0}):
        plain, parted = (foley.generate(**given, text=text)[0] for text in ("door", [(0, 9, "door")]))
        np.testing.assert_array_equal(parted.waveform, plain.waveform)
        np.testing.assert_array_equal(parted.tokens, plain.tokens)


def test_another_sound_to_be_like_is_refused(
    foley: Foley, model: Path, video: Path, sounds: list[Path], tmp_path: Path
):
    made = edits(foley, video, sounds)
    again = Foley.load(model, record=made.save(tmp_path / "clip").record)
    for given in (sounds[:1], [sounds[0], sounds[0]]):
        with pytest.raises(ValueError, match=r"like second\.wav with SHA-256 .*; give it \(--like\)"):
            again.remake(video, like=given)
    for other in ([], sounds[1]):
        with pytest.raises(ValueError, match=r"of a sound like first\.wav"):
            again.remake(video, like=other)


def test_a_record_without_video_takes_none(foley: Foley, model: Path, video: Path, tmp_path: Path):
    saved = words_alone(foley, video, []).save(tmp_path / "clip")
    assert saved.video is None
    assert not saved.trouble
    with pytest.raises(ValueError, match=r"clip\.mp4: the record is of a sound without video; leave it out"):
        Foley.load(model, record=saved.record).remake(video)


def test_a_record_of_a_video_needs_it(model: Path, record: Path):
    with pytest.raises(ValueError, match=r"of a sound for a video; give that, clip\.mp4"):
        Foley.load(model, record=record).remake()


def test_a_record_from_before_there_was_more_to_say_is_read(model: Path, record: Path, video: Path, tmp_path: Path):
    old = json.loads(record.read_text(encoding="utf-8"))
    for step in old["history"]:
        for name in ("negative", "like"):
            del step[name]
        del step["sampling"]["negative_scale"]
    del old["history"][0]["duration_s"]
    (tmp_path / "old.json").write_text(json.dumps(old), encoding="utf-8")
    made = Foley.load(model, record=tmp_path / "old.json").remake(video).save(tmp_path / "again")
    assert made.audio.read_bytes() == record.with_suffix(".flac").read_bytes()


def test_other_weights_are_named(model: Path, record: Path, tmp_path: Path):
    folder = changed(model, tmp_path / "model", lambda raw: None)
    control = next(folder.glob("control*"))
    weights = load_file(control)
    first = next(iter(weights))
    save_file(weights | {first: weights[first] + 1}, control)
    with pytest.raises(ValueError, match=r"control\.safetensors has the SHA-256 .* name the model that made"):
        Foley.load(folder, record=record)
    control.unlink()
    with pytest.raises(ValueError, match="no such model"):
        Foley.load(folder, record=record)


def test_judges_may_be_others(model: Path, record: Path, tmp_path: Path):
    folder = changed(model, tmp_path / "model", lambda raw: None)
    next(folder.glob("judges*")).unlink()
    assert Foley.load(folder, record=record).record is not None


def test_another_video_is_refused(model: Path, record: Path, tmp_path: Path):
    other = write_noise(tmp_path / "other.mp4", 1.0)
    with pytest.raises(ValueError, match=r"other\.mp4: not the video of the record, which is clip\.mp4"):
        Foley.load(model, record=record).remake(other)
    with pytest.raises(ValueError, match="no record"):
        Foley.load(model).remake(other)


def damage(name: str, held: dict[str, Any]) -> Any:
    step = held["history"][0]
    match name:
        case "list":
            return [held]
        case "settings":
            del held["settings"]
        case "vocoder":
            del held["settings"]["vocoder"]
        case "paths":
            held["settings"]["paths"] = {"codec": "/etc/passwd"}
        case "launch":
            held["settings"]["run"]["launch"] = "touch pwned"
        case "operation":
            step["operation"] = "load"
        case "steps":
            step["sampling"]["steps"] = 0
        case "start":
            del step["sampling"]["start"]
        case "text":
            step["text"] = 3
        case "first":
            held["history"] = held["history"][1:]
        case "empty":
            held["history"] = []
        case "unknown value":
            held["settings"]["vocoder"]["kind"] = "tape"
    return held


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("list", "should be an object"),
        ("settings", "settings is missing"),
        ("vocoder", r"settings\.vocoder"),
        ("paths", r"settings\.paths"),
        ("launch", r"settings\.run"),
        ("operation", "history.0"),
        ("steps", r"sampling\.steps=0"),
        ("start", r"sampling\.start is missing"),
        ("text", r"text\.str=3"),
        ("first", "must begin with generate or listen"),
        ("empty", "must begin with generate or listen"),
        ("unknown value", "vocoder"),
    ],
)
def test_a_damaged_record_is_one_line(model: Path, record: Path, tmp_path: Path, name: str, message: str):
    broken = tmp_path / "clip.json"
    broken.write_text(json.dumps(damage(name, json.loads(record.read_text(encoding="utf-8")))), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        Foley.load(model, record=broken)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), ("{", "Invalid JSON"), ("{}", "video is")])
def test_no_record_is_one_line(model: Path, tmp_path: Path, content: str | None, message: str):
    if content is not None:
        (tmp_path / "clip.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Foley.load(model, record=tmp_path / "clip.json")


def again(now: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["generate", "--model", str(now), *map(str, arguments)])


def test_the_command_makes_it_again(now: Path, record: Path, video: Path, tmp_path: Path):
    result = again(now, video, "--record", record, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "clip.flac").read_bytes() == record.with_suffix(".flac").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "1"], "leave out --text, --negative"),
        (["--only", "1-2"], "leave out --text"),
        (["other.mp4"], "found 2 videos"),
    ],
)
def test_options_that_the_record_answers_are_refused(
    now: Path, record: Path, video: Path, tmp_path: Path, arguments: list[str], message: str, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("other.mp4").touch()
    result = again(now, video, *arguments, "--record", record, "--out", "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
