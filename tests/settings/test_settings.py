"""params.yaml: what loads, and what a mistake in it is answered with."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import parse_yaml as dvc_yaml
from helpers import ROOT
from helpers.settings import MISSING, RAW, changed
from hypothesis import given
from hypothesis import strategies as st

from specmaskfoley.settings import Audio, Params, Training
from specmaskfoley.settings.params import in_force
from specmaskfoley.settings.reading import parse_yaml

PARAMS = ROOT / "params.yaml"
MINI = RAW["profiles"]["mini"]
WIDTH, DEPTH = MINI["backbone"]["width"], MINI["backbone"]["depth"]


def audio(duration_s: float = 10.0, **changes: Any) -> Audio:
    settings = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "num_mels": 80, "patch": 16}
    return Audio(duration_s=duration_s, fmin=0.0, fmax=8000.0, **(settings | changes))


@pytest.mark.parametrize("profile", sorted(RAW["profiles"]))
def test_every_profile_of_the_real_file_loads(profile):
    params = Params.from_mapping(changed({"profile": profile}))
    assert params.profile == profile
    assert params.backbone.depth == RAW["profiles"][profile]["backbone"]["depth"]
    assert params.codec.channel_mults == tuple(RAW["profiles"][profile]["codec"]["channel_mults"])


def test_the_file_on_disk_gives_what_its_mapping_gives():
    assert Params.load(PARAMS) == Params.from_mapping(RAW)


def test_settings_cannot_be_changed_after_loading():
    params = Params.load(PARAMS)
    with pytest.raises(ValueError, match="frozen"):
        params.cfg.scale = 1.0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"sede": 1}, ["sede is not a known setting"], id="unknown-top-level"),
        pytest.param({"sample.step": 1}, ["sample.step is not a known setting"], id="unknown-nested"),
        pytest.param(
            {"profiles.mini.codec.colour": 1},
            ["profiles.mini.codec.colour is not a known setting"],
            id="unknown-in-profile",
        ),
        pytest.param(
            {"profiles.mini.extra": {}}, ["profiles.mini.extra is not a known setting"], id="unknown-section-of-profile"
        ),
        pytest.param({"sample.steps": "12"}, ["sample.steps='12'", "integer"], id="text-for-number"),
        pytest.param({"sample.steps": 1.5}, ["sample.steps=1.5", "integer"], id="fraction-for-integer"),
        pytest.param({"sample.steps": True}, ["sample.steps=True", "integer"], id="boolean-for-integer"),
        pytest.param({"sample.steps": 0}, ["sample.steps=0", "greater than 0"], id="zero-steps"),
        pytest.param({"cfg.scale": -1.0}, ["cfg.scale=-1.0", "greater than or equal to 0"], id="negative-scale"),
        pytest.param({"cfg.scale": float("nan")}, ["cfg.scale=nan"], id="not-a-number"),
        pytest.param({"cfg.mode": "video"}, ["cfg.mode='video'", "'multi'", "'no_video'"], id="unknown-mode"),
        pytest.param(
            {"profiles.mini.train_backbone.prompt_dropout": 1.5},
            ["profiles.mini.train_backbone.prompt_dropout=1.5", "less than or equal to 1"],
            id="share-above-one",
        ),
        pytest.param(
            {"profiles.mini.train_control.label_smoothing": 1.5},
            ["profiles.mini.train_control.label_smoothing=1.5", "less than or equal to 1"],
            id="smoothing-above-one",
        ),
        pytest.param(
            {"profiles.mini.audio.normalize": 0.0},
            ["profiles.mini.audio.normalize=0.0", "greater than 0"],
            id="normalised-to-silence",
        ),
        pytest.param(
            {"profiles.mini.codec.channel_mults": [1, -1, 2]},
            ["profiles.mini.codec.channel_mults.1=-1"],
            id="wrong-element-of-a-list",
        ),
        pytest.param({"paths": "data"}, ["paths='data'"], id="value-for-section"),
        pytest.param({"seed": MISSING}, ["seed is missing"], id="missing-top-level"),
        pytest.param({"run.threads": MISSING}, ["run.threads is missing"], id="missing-nested"),
        pytest.param({"profiles.mini.cfg.mode": MISSING}, ["profiles.mini.cfg.mode is missing"], id="nowhere"),
        pytest.param({"profiles.mini.cfg.scale": -1.0}, ["profiles.mini.cfg.scale=-1.0"], id="wrong-in-profile"),
        pytest.param(
            {"profiles.mini.audio.patch": MISSING}, ["profiles.mini.audio.patch is missing"], id="missing-in-profile"
        ),
        pytest.param({"profile": "huge"}, ["profile='huge'", "mini"], id="unknown-profile"),
        pytest.param({"profile": MISSING}, ["profile=None"], id="no-profile-chosen"),
        pytest.param({"profile": ["mini"]}, ["profile=['mini']", "known: mini"], id="list-of-profiles"),
        pytest.param({"profiles.mini": None}, ["profiles.mini is empty"], id="empty-profile"),
        pytest.param({"profiles": MISSING}, ["profile='mini'", "known: none"], id="no-profiles"),
        pytest.param({"profiles.mini.run": {"threads": 1}}, ["run set both", "profiles.mini"], id="set-twice"),
        pytest.param(
            {"profiles.mini.backbone.heads": WIDTH + 1},
            ["profiles.mini.backbone", f"width={WIDTH}", f"heads={WIDTH + 1}"],
            id="heads",
        ),
        pytest.param(
            {"profiles.mini.codec.stem": 2, "profiles.mini.codec.channel_mults": [1, 1, 2]},
            ["codec.stem=2", "patches of 8", "audio.patch=16"],
            id="codec-patch",
        ),
        pytest.param({"profiles.mini.audio.num_mels": 81}, ["num_mels=81", "patch=16"], id="mels-not-whole-patches"),
        pytest.param({"profiles.mini.audio.fmax": 12000.0}, ["fmax=12000.0", "sample_rate=22050"], id="above-nyquist"),
        pytest.param({"profiles.mini.audio.duration_s": 0.1}, ["duration_s=0.1"], id="shorter-than-a-token"),
        pytest.param({"data.audio": "/sounds"}, ["data.audio='/sounds'", "tuple"], id="folder-for-folders"),
        pytest.param(
            {"data.audio": ["/sounds"], "profiles.mini.audio.duration_s": 0.5},
            ["data.audio needs audio.duration_s of at least 1, found 0.5"],
            id="parts-shorter-than-a-second",
        ),
        pytest.param(
            {"profiles.mini.audio.duration_s": float("inf")},
            ["profiles.mini.audio.duration_s=inf", "finite"],
            id="endless-clips",
        ),
        pytest.param(
            {"profiles.mini.audio.fmin": 8000.0}, ["profiles.mini.audio", "fmin=8000.0", "fmax=8000.0"], id="no-band"
        ),
        pytest.param(
            {"profiles.mini.audio.hop_length": 2048}, ["hop_length=2048", "n_fft=1024"], id="hop-leaves-out-samples"
        ),
        pytest.param(
            {"profiles.mini.prepare.val_fraction": 0.5, "profiles.mini.prepare.test_fraction": 0.5},
            ["profiles.mini.prepare", "val_fraction=0.5", "test_fraction=0.5", "no clips to train on"],
            id="nothing-to-train-on",
        ),
        pytest.param(
            {"profiles.mini.train_codec.quantize_after": MINI["train_codec"]["optim"]["steps"]},
            ["profiles.mini.train_codec", "quantize_after=", "optim.steps="],
            id="codebook-never-trained",
        ),
        pytest.param({"run.precision": "int4"}, ["run.precision='int4'", "'auto'"], id="unknown-precision"),
        pytest.param(
            {"profiles.mini.control.depth": 99}, ["control.depth=99", f"backbone.depth={DEPTH}"], id="control-depth"
        ),
        pytest.param(
            {"profile": "vggsound", "profiles.vggsound.encoders.sync.kind": "synch"},
            ["profiles.vggsound.encoders.sync", "'synch'", "'mini', 'synchformer'"],
            id="unknown-encoder",
        ),
        pytest.param(
            {"profile": "vggsound", "profiles.vggsound.encoders.sync.weigths": "x"},
            ["profiles.vggsound.encoders.sync.weigths is not a known setting"],
            id="unknown-setting-of-an-encoder",
        ),
        pytest.param(
            {"profile": "vggsound", "profiles.vggsound.encoders.train_sync": MINI["encoders"]["train_sync"]},
            ["sync.kind=synchformer is not trained here", "train_sync"],
            id="training-of-an-official-encoder",
        ),
        pytest.param(
            {"profiles.mini.encoders.train_sync": MISSING},
            ["sync.kind=mini is trained here", "train_sync"],
            id="no-training-of-a-mini-encoder",
        ),
        pytest.param(
            {"profile": "vggsound", "profiles.vggsound.video.sync_size": 112},
            ["encoders.sync.kind=synchformer", "sync_size=224", "112"],
            id="wrong-frames-for-synchformer",
        ),
        pytest.param(
            {"profile": "vggsound", "profiles.vggsound.video.semantic_fit": "crop"},
            ["encoders.semantic.kind=dfn5b_clip", "semantic_fit=clip", "crop"],
            id="wrong-frames-for-clip",
        ),
        pytest.param(
            {"profile": "vggsound", "profiles.vggsound.video.sync_fps": 24.0},
            ["encoders.sync.kind=synchformer", "sync_fps=25.0", "24.0"],
            id="wrong-rate-for-synchformer",
        ),
        pytest.param(
            {"profile": "vggsound", "profiles.vggsound.vocoder.kind": "melgan"},
            ["vocoder.kind=melgan reads the specvqgan mel", "codec's is the hifigan mel"],
            id="vocoder-of-another-mel",
        ),
        pytest.param(
            {"profile": "vggsound", "profiles.vggsound.audio.fmax": 7600.0},
            ["vocoder.kind=bigvgan reads the hifigan mel", "fmax 8000", "fmax 7600"],
            id="vocoder-of-another-band",
        ),
        pytest.param(
            {"profiles.mini.audio.mel": "specvqgan"}, ["mel=specvqgan is defined for", "fmax 7600"], id="recipe-of-mel"
        ),
        pytest.param(
            {"profiles.mini.codec.weights": "specvqgan_vggsound"},
            ["codec.weights and train_codec exclude each other"],
            id="codec-official-and-trained",
        ),
        pytest.param(
            {"profiles.mini.train_codec": MISSING},
            ["codec.weights and train_codec exclude each other"],
            id="codec-from-nowhere",
        ),
        pytest.param(
            {"profiles.mini.codec.weights": "specvqgan_vggsound", "profiles.mini.train_codec": None},
            ["codec.weights=specvqgan_vggsound", "audio.mel=specvqgan, found hifigan"],
            id="codec-of-another-mel",
        ),
        pytest.param({"data.source": "folder"}, ["data.folder is null", "data.source=folder"], id="folder-not-named"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(changes, told):
    with pytest.raises(ValueError, match=r"params\.yaml: ") as caught:
        Params.from_mapping(changed(changes))
    for part in told:
        assert part in str(caught.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ValueError, match="sede") as caught:
        Params.from_mapping(changed({"sede": 1, "sample.steps": "12", "run.threads": MISSING}))
    assert len(str(caught.value).splitlines()) == 3


def test_folder_source_with_a_folder_loads():
    assert Params.from_mapping(changed({"data.source": "folder", "data.folder": "videos"})).data.folder == "videos"


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\t- x"])
def test_bad_yaml_names_the_file(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ": not valid YAML"):
        Params.load(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1.0e-4", 1e-4), ("1e-05", 1e-5), ("2E3", 2e3), (".5", 0.5), ("-.inf", float("-inf")),
        ("12", 12), ("-0", 0), ("1_000", 1000), ("0x1F", 31), ("0o17", 15), ("1.2.3", "1.2.3"), ("1e", "1e"),
    ],
)  # fmt: skip
def test_numbers_are_what_dvc_takes_them_for(text, value):
    read = parse_yaml(f"a: {text}")["a"]
    assert (read, type(read)) == (value, type(value))
    assert dvc_yaml(f"a: {text}", "params.yaml")["a"] == value


def test_other_text_is_no_number():
    assert parse_yaml("{a: 12:30, b: 2026-05-01, c: '010'}") == {"a": "12:30", "b": "2026-05-01", "c": "010"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seed: 0\n", "seed: 010\n", "line {line}: 010 may be octal or decimal; write 10, or '010' if it is text"),
        ("seed: 0\n", "seed: 0\nseed: 1\n", "line {next}: seed is given twice, first in line {line}"),
    ],
)
def test_a_number_or_key_with_two_meanings_is_refused(tmp_path, old, new, told):
    before, after = PARAMS.read_text(encoding="utf-8").split(old, 1)
    path, line = tmp_path / "params.yaml", before.count("\n") + 1
    path.write_text(before + new + after, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(told.format(line=line, next=line + 1))):
        Params.load(path)


def test_an_inner_key_given_twice_is_refused():
    with pytest.raises(yaml.YAMLError, match="line 3: b is given twice, first in line 2"):
        parse_yaml("a:\n  b: 1\n  b: 1\n")
    assert parse_yaml("x: &x {a: 1}\ny: {<<: *x, a: 2}")["y"] == {"a": 2}


def test_a_learning_rate_may_be_written_as_people_do(tmp_path):
    text = re.sub(r"base_learning_rate: [^\s,}]+", "base_learning_rate: 1e-4", PARAMS.read_text(encoding="utf-8"))
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    assert Params.load(tmp_path / "params.yaml").train_backbone.optim.base_learning_rate == 1e-4


@pytest.mark.parametrize("text", ["", "- profile", "mini"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="expected a mapping"):
        Params.load(path)


def test_missing_file_names_the_path(tmp_path):
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "absent.yaml")) + ": no such file"):
        Params.load(tmp_path / "absent.yaml")


def test_the_record_of_all_settings_can_be_read_back():
    params = Params.load(PARAMS)
    record = params.to_dict()
    assert record["codec"]["channel_mults"] == list(params.codec.channel_mults)
    assert Params.model_validate(record, strict=False) == params


def test_ten_seconds_give_the_papers_lengths():
    settings = audio(10.0)
    assert (settings.token_rows, settings.token_columns) == (5, 53)
    assert settings.num_frames == 848
    assert settings.num_samples == 217_088
    assert settings.token_duration_s == pytest.approx(9.845, abs=5e-4)


@given(
    duration_s=st.floats(0.6, 100.0),
    sample_rate=st.sampled_from([16000, 22050, 44100, 48000]),
    hop_length=st.sampled_from([100, 160, 256, 512]),
    patch=st.sampled_from([4, 8, 16]),
)
def test_token_grid_is_whole_patches_and_all_that_fit_into_the_clip(duration_s, sample_rate, hop_length, patch):
    settings = audio(duration_s, sample_rate=sample_rate, hop_length=hop_length, patch=patch)
    samples = duration_s * sample_rate
    assert settings.num_frames % patch == 0
    assert settings.num_frames == settings.token_columns * patch
    assert settings.num_samples <= samples + 1e-6
    assert settings.num_samples + patch * hop_length > samples - 1e-6 - hop_length
    assert settings.token_duration_s <= duration_s + 1e-9


def test_official_weights_are_what_the_profile_names():
    assert Params.from_mapping(RAW).needed_weights() == ()
    vggsound = Params.from_mapping(changed({"profile": "vggsound"}))
    assert set(vggsound.needed_weights()) >= {"synchformer", "dfn5b_clip", "clap", "passt", "vggish", "imagebind"}
    assert (vggsound.num_sync_frames, vggsound.num_semantic_frames) == (250, 80)


def test_peak_learning_rate_is_the_papers():
    optim = Training(
        steps=140_000,
        batch_size=64,
        base_learning_rate=1e-3,
        warmup_steps=2800,
        weight_decay=0.01,
        grad_clip=1.0,
        checkpoint_every=1000,
        validate_every=1000,
    )
    assert optim.peak_learning_rate == pytest.approx(2.5e-4)


@pytest.mark.parametrize(
    ("changes", "scale", "steps", "temperature"),
    [
        ({}, 1.5, 12, 4.5),
        ({"cfg.scale": 3}, 3.0, 12, 4.5),
        ({"profile": "vggsound"}, 3.0, 12, 9.0),
        ({"profile": "vggsound", "cfg.scale": 2, "sample.steps": 16}, 2.0, 16, 9.0),
        ({"cfg.scale": MISSING, "sample": MISSING}, 1.5, 12, 4.5),
        ({"cfg.scale": 0.0}, 0.0, 12, 4.5),
    ],
)
def test_the_top_level_overrides_guidance_and_decoding_of_the_profile(changes, scale, steps, temperature):
    params = Params.from_mapping(changed(changes))
    assert (params.cfg.scale, params.sample.steps) == (scale, steps)
    assert (params.cfg.mode, params.sample.gumbel_temperature) == ("multi", temperature)


def test_settings_in_force():
    written = {"cfg.scale": None, "cfg.mode": "text", "profiles.mini.cfg.scale": 1.5, "profiles.mini.cfg.mode": "multi",
               "profiles.mini.audio.patch": 16, "seed": 0}  # fmt: skip
    expected = {"cfg.scale": 1.5, "cfg.mode": "text", "profiles.mini.audio.patch": 16, "seed": 0}
    assert in_force(written, "mini") == expected
    assert in_force(expected, "mini") == expected
