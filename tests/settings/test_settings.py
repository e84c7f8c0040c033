"""params.yaml: what loads, and what a mistake in it is answered with."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import parse_yaml as dvc_yaml
from helpers import ROOT
from helpers.settings import MISSING, RAW, changed
from hypothesis import given
from hypothesis import strategies as st

from specmaskfoley.settings import (
    SPECVQGAN_RECIPE,
    Audio,
    Decoding,
    Encodec,
    Magnet,
    Params,
    SpecMaskGIT,
    SpecVQGAN,
    TokenGrid,
    TrainCodec,
    Training,
)
from specmaskfoley.settings.params import in_force
from specmaskfoley.settings.reading import parse_yaml

PARAMS = ROOT / "params.yaml"
MINI = RAW["profiles"]["mini"]
SPECVQGAN_MEL = {f"profiles.mini.audio.{name}": value for name, value in SPECVQGAN_RECIPE.items()} | {
    "profiles.mini.audio.mel": "specvqgan"
}
WIDTH, DEPTH = MINI["backbone"]["width"], MINI["backbone"]["depth"]


def mini_1d(section: str) -> dict[str, Any]:
    """A section of the other small profile."""
    return dict(RAW["profiles"]["mini_1d"][section])


def audio(duration_s: float = 10.0, **changes: Any) -> Audio:
    settings = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "num_mels": 80, "patch": 16}
    return Audio(duration_s=duration_s, fmin=0.0, fmax=8000.0, **(settings | changes))


def specvqgan(stem: int = 4, **changes: Any) -> SpecVQGAN:
    settings = {"codebook_size": 8, "code_width": 8, "channels": 8, "encoder_blocks": 1, "decoder_blocks": 1}
    settings |= {"channel_mults": (1, 1, 2), "attention": False}
    return SpecVQGAN(kind="specvqgan", stem=stem, **(settings | changes))


def encodec(strides: tuple[int, ...] = (4, 8, 16), **changes: Any) -> Encodec:
    """Of samples, if nothing else is said."""
    settings = {"inputs": 1, "codebooks": 4, "codebook_size": 8, "code_width": 8, "channels": 8, "lstm_layers": 0}
    return Encodec(kind="encodec", strides=strides, **(settings | changes))


@pytest.mark.parametrize("profile", sorted(RAW["profiles"]))
def test_every_profile_of_the_real_file_loads(profile):
    params = Params.from_mapping(changed({"profile": profile}))
    assert params.profile == profile
    assert params.backbone.depth == RAW["profiles"][profile]["backbone"]["depth"]
    codec = RAW["profiles"][profile]["codec"]
    shape = "channel_mults" if codec["kind"] == "specvqgan" else "strides"
    assert getattr(params.codec, shape) == tuple(codec[shape])


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
        pytest.param(
            {"profiles.mini.train_codec.adversarial_weight": 0.1, "profiles.mini.train_codec.crop_columns": 1},
            ["crop_columns=1 of 26 token columns are 16 mel frames", "judges 24 at least", "adversarial_weight=0"],
            id="crop-shorter-than-a-patch",
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
            {"profiles.mini.codec.weights": "specvqgan_vggsound", **SPECVQGAN_MEL},
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
        pytest.param(
            {"profiles.mini.codec": mini_1d("codec")},
            ["backbone.kind=specmaskgit reads tokens of a spectrogram", "codec.kind=encodec makes none"],
            id="backbone-without-spectrogram",
        ),
        pytest.param(
            {"profiles.mini.backbone": mini_1d("backbone") | {"codebooks": 3}},
            ["backbone.codebooks=3, but the codec has 5"],
            id="backbone-of-other-codebooks",
        ),
        pytest.param(
            {"profiles.mini.train_codec": MINI["train_codec"] | {"spectral_weight": 1.0}},
            ["profiles.mini.train_codec.spectral_weight is not a known setting"],
            id="unknown-setting-of-a-codecs-training",
        ),
        pytest.param(
            {"profile": "mini_1d", "profiles.mini_1d.codec.inputs": 40},
            ["codec.inputs=40: expected 1, for samples, or audio.num_mels=80, for a mel"],
            id="codec-of-other-inputs",
        ),
        pytest.param(
            {"profile": "mini_1d", "profiles.mini_1d.codec.inputs": 1, "profiles.mini_1d.vocoder": None},
            ["codec.inputs=1 and codec.weights=None: a codec of samples (1) is official"],
            id="codec-of-samples-to-be-trained",
        ),
        pytest.param(
            {"profile": "magnet", "profiles.magnet.codec.inputs": 80, "profiles.magnet.vocoder": MINI["vocoder"]},
            ["codec.inputs=80 and codec.weights=encodec_16khz:", "one of a mel (audio.num_mels), without them"],
            id="official-codec-of-a-mel",
        ),
        pytest.param(
            {"profiles.mini.backbone.kind": "magnets"}, ["'magnets'", "'specmaskgit', 'magnet'"], id="unknown-backbone"
        ),
        pytest.param(
            {"profiles.mini.backbone.window": 5},
            ["profiles.mini.backbone.window is not a known setting"],
            id="setting-of-another-backbone",
        ),
        pytest.param(
            {"profiles.mini.train_backbone": None},
            ["backbone.weights and train_backbone exclude each other"],
            id="backbone-from-nowhere",
        ),
        pytest.param(
            {"profile": "magnet", "profiles.magnet.train_backbone": MINI["train_backbone"]},
            ["backbone.weights and train_backbone exclude each other"],
            id="backbone-official-and-trained",
        ),
        pytest.param(
            {"sample.top_p": 0.9},
            ["backbone.kind=specmaskgit does not read sample.top_p=0.9: set it to null"],
            id="decoding-of-another-backbone",
        ),
        pytest.param(
            {"profiles.mini.sample.gumbel_temperature": None},
            ["backbone.kind=specmaskgit needs sample.gumbel_temperature"],
            id="decoding-left-out",
        ),
        pytest.param(
            {"profile": "mini_1d", "sample.schedule": "cosine"},
            ["backbone.kind=magnet does not read sample.schedule=cosine: set it to null"],
            id="decoding-of-specmaskgit",
        ),
        pytest.param(
            {"profile": "mini_1d", "profiles.mini_1d.sample.temperature": None},
            ["backbone.kind=magnet needs sample.temperature"],
            id="decoding-of-magnet-left-out",
        ),
        pytest.param({"sample.steps": [6, 0]}, ["sample.steps=(6, 0)", "greater than 0"], id="zero-steps-of-a-level"),
        pytest.param({"sample.steps": []}, ["sample.steps=()", "one a level"], id="steps-of-no-level"),
        pytest.param(
            {"sample.steps": [6, 3]},
            ["sample.steps=[6, 3] has 2 numbers, and the backbone decides its tokens in 1 level"],
            id="steps-of-two-levels",
        ),
        pytest.param(
            {"profile": "magnet", "sample.steps": [6, 3]},
            ["sample.steps=[6, 3] has 2 numbers, and the backbone decides its tokens in 4 levels"],
            id="steps-of-too-few-levels",
        ),
        pytest.param(
            {"profiles.mini.vocoder": None}, ["codec.kind=specvqgan makes a mel: name a vocoder"], id="no-vocoder"
        ),
        pytest.param(
            {"profile": "mini_1d", "profiles.mini_1d.vocoder": None},
            ["codec.kind=encodec makes a mel: name a vocoder"],
            id="no-vocoder-of-a-mel-without-bands",
        ),
        pytest.param(
            {"profile": "magnet", "profiles.magnet.vocoder": MINI["vocoder"]},
            ["codec.kind=encodec makes samples itself: set vocoder to null"],
            id="vocoder-of-samples",
        ),
        pytest.param(
            {"profile": "mini_1d", "profiles.mini_1d.codec.strides": [3, 5]},
            ["codec.strides=[3, 5] make columns of 15 mel frames, and the 416 of a clip"],
            id="columns-of-frames-not-whole",
        ),
        pytest.param(
            {"profile": "magnet", "profiles.magnet.codec.strides": [4, 8, 7]},
            ["codec.strides=[4, 8, 7] make columns of 224 samples", "159360 of a clip"],
            id="columns-of-samples-not-whole",
        ),
        pytest.param(
            {"profile": "magnet", "profiles.magnet.audio.sample_rate": 22050},
            ["codec.weights=encodec_16khz reads audio.sample_rate=16000, found 22050"],
            id="rate-of-another-codec",
        ),
        pytest.param({"cfg.ramp": "up"}, ["cfg.ramp='up'", "'rising'", "'falling'"], id="unknown-ramp"),
        pytest.param(
            {"profiles.mini.control.alignment": "place"},
            ["profiles.mini.control.alignment='place'", "'index'", "'time'"],
            id="unknown-alignment",
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
    assert specvqgan().grid(settings) == TokenGrid(5, 53, 4096)
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
    grid = specvqgan(stem=patch // 4).grid(settings)
    assert (grid.rows, grid.columns) == (80 // patch, settings.num_frames // patch)
    assert grid.columns * grid.step == settings.num_samples
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


@pytest.mark.parametrize(
    ("profile", "kinds", "grid", "levels"),
    [
        ("mini", (SpecVQGAN, TrainCodec, SpecMaskGIT), TokenGrid(5, 26, 4096), 1),
        ("mini_1d", (Encodec, TrainCodec, Magnet), TokenGrid(2, 208, 512), 2),
        ("magnet", (Encodec, type(None), Magnet), TokenGrid(4, 498, 320), 4),
    ],
)
def test_the_kind_decides_which_codec_and_backbone(profile, kinds, grid, levels):
    params = Params.from_mapping(changed({"profile": profile}))
    assert tuple(type(getattr(params, name)) for name in ("codec", "train_codec", "backbone")) == kinds
    assert (params.grid, params.backbone.levels) == (grid, levels)
    assert (params.codec.mel, params.codec.bands) == (profile != "magnet", profile == "mini")
    assert (params.vocoder is not None) == params.codec.mel


def test_steps_of_the_levels():
    decoding = Decoding(steps=12)
    assert [decoding.steps_of(levels) for levels in (1, 2, 4)] == [(12,), (12, 6), (12, 6, 6, 6)]
    assert Decoding(steps=1).steps_of(3) == (1, 1, 1)
    listed = Decoding(steps=(20, 10, 10, 5))
    assert (decoding.first_steps, listed.first_steps) == (12, 20)
    assert listed.steps_of(4) == (20, 10, 10, 5)
    with pytest.raises(ValueError, match=r"steps=\[20, 10, 10, 5\] has 4 numbers, .* in 3 levels"):
        listed.steps_of(3)


def test_steps_of_every_level_may_be_listed_anywhere():
    for changes in ({"sample.steps": [8, 4, 2, 2]}, {"profiles.magnet.sample.steps": [8, 4, 2, 2]}):
        params = Params.from_mapping(changed({"profile": "magnet", **changes}))
        assert params.sampling.steps == (8, 4, 2, 2)


@given(
    strides=st.lists(st.integers(2, 8), min_size=1, max_size=4),
    columns=st.integers(1, 12),
    more=st.integers(0, 40),
    mel=st.booleans(),
)
def test_columns_of_encodec_are_the_whole_sound(strides, columns, more, mel):
    """A clip of one mel frame a sample, so that any number of them can be asked for."""
    step = math.prod(strides)
    length = columns * step + more
    settings = audio((length + 0.5) / 16000, sample_rate=16000, hop_length=1, patch=1)
    codec = encodec(tuple(strides), inputs=80) if mel else encodec(tuple(strides), weights="public")
    assert settings.num_samples == settings.num_frames == length
    if more % step:
        what = "mel frames" if mel else "samples"
        with pytest.raises(ValueError, match=rf"columns of {step} {what}, and the {length} of a clip"):
            codec.grid(settings)
    else:
        assert codec.grid(settings) == TokenGrid(4, columns + more // step, step)
        assert codec.grid(settings).size == 4 * (columns + more // step)


def test_columns_of_a_mel_have_the_samples_of_its_frames():
    assert encodec((2, 2), inputs=80).grid(audio(5.0)) == TokenGrid(4, 104, 4 * 256)


def test_specvqgans_patches_are_the_audios():
    assert specvqgan(channel_mults=(1, 2), stem=8).grid(audio(5.0)) == TokenGrid(5, 26, 4096)
    with pytest.raises(ValueError, match=r"codec.stem=8 and 3 codec.channel_mults give patches of 32, .*patch=16"):
        specvqgan(stem=8).grid(audio(5.0))
    with pytest.raises(ValueError, match=r"codec.weights=public: .* audio.mel=specvqgan, found hifigan"):
        specvqgan(weights="public").grid(audio(5.0, mel="hifigan"))
