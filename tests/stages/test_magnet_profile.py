"""The magnet profile on real clips, from weight files to report, by official networks filled by rule.

Networks and pictures have their full sizes; of each clip 1.3 s are seen and heard, by CLIP two frames, the
judges are small ones trained here, and training and sampling take a few steps of one clip.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers.golden_rule import Golden
from helpers.real_clips import SEMANTIC_FRAMES, real_project, without_judges
from helpers.tiny import STAGES, Project, trainings
from safetensors.torch import load_file

from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import SPLITS, read_arrays

pytestmark = [pytest.mark.official, pytest.mark.timeout(3600)]
FORBIDDEN = ["dfn5b_clip", "encodec_16khz", "magnet_small"]
WEIGHTS = ["synchformer", "t5_large", "t5_large_tokenizer", *FORBIDDEN]
SYSTEMS = ["specmaskfoley", "backbone_text", "codec_roundtrip"]
SECONDS = 1.3
LABELS = ["car engine knocking", "playing bass drum", "canary calling"]


def shorten(params: dict[str, Any]) -> None:
    """Few steps of everything."""
    without_judges(params)
    magnet = params["profiles"]["magnet"]
    magnet["audio"]["duration_s"] = SECONDS
    magnet["video"]["semantic_fps"] = SEMANTIC_FRAMES / SECONDS
    magnet["judges"] |= {"width": 4, "sync_window_s": 0.8, "sync_max_offset_s": 0.4}
    for training in trainings(magnet):
        training |= {"steps": 2, "batch_size": 1, "warmup_steps": 1, "checkpoint_every": 2, "validate_every": 2}
    magnet["train_control"]["listen_every"] = 0
    params["sample"] |= {"steps": [2, 1, 1, 1], "batch_size": 1, "videos": 1}
    params["evaluate"] |= {"resamples": 20, "pictures": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, golden: Golden, clips: Path) -> Iterator[Project]:
    """A project on which `dvc repro` has run. One of its three clips is for training and for validation, so that it is
    read once."""
    root = tmp_path_factory.mktemp("magnet")
    names = dict(zip(["train", "val", "test-0", "test-1"], [0, 0, 1, 2], strict=True))
    videos = sorted(clips.glob("*.mp4"))
    rows = {name: (videos[number], LABELS[number], name.split("-")[0]) for name, number in names.items()}
    project = real_project(root, "magnet", rows, WEIGHTS, golden, shorten)
    project.first_output = project.dvc("repro")
    yield project
    shutil.rmtree(root)  # 15 GB


@pytest.fixture(scope="module")
def params(made: Project) -> Params:
    return Params.load(made.path("params.yaml"))


def test_every_stage_runs_once(made: Project) -> None:
    assert sorted(re.findall(r"^Running stage '(\w+)'", made.first_output, re.MULTILINE)) == sorted(STAGES)
    assert "up to date" in made.dvc("status")


def test_weights_are_taken_from_the_bundle_and_forbidden_uses_told(made: Project) -> None:
    listed = json.loads(made.path("data", "weights.json").read_text(encoding="utf-8"))
    assert set(listed) == set(WEIGHTS)
    assert "fetch_weights: no commercial use of encodec_16khz, magnet_small: CC-BY-NC-4.0" in made.first_output


def test_features_and_tokens_have_the_profiles_shapes(made: Project) -> None:
    for split in SPLITS:
        ids, features = read_arrays(made.path("data", "features"), split)
        count = len(ids)
        assert {name: (array.dtype.name, array.shape) for name, array in features.items()} == {
            "sync": ("float16", (count, 24, 768)),
            "semantic": ("float16", (count, SEMANTIC_FRAMES, 1024)),
            "semantic_mean": ("float32", (count, 1024)),
            "text_prompt": ("float16", (count, 32, 1024)),
        }
        assert all(np.isfinite(array).all() for array in features.values())
        said = (features["text_prompt"] != 0).any(-1)
        words = said.sum(1)
        assert ((words > 1) & (words < 32)).all()
        assert all(row[:number].all() for row, number in zip(said, words, strict=True))
        found, tokens = read_arrays(made.path("data", "tokens"), split)
        assert found == ids
        assert (tokens["tokens"].dtype.name, tokens["tokens"].shape) == ("int16", (count, 4, 63))
        assert 0 <= tokens["tokens"].min() <= tokens["tokens"].max() < 2048
        assert all(len(np.unique(row)) > 10 for clip in tokens["tokens"] for row in clip)
    _, features = read_arrays(made.path("data", "features"), "test")
    for name, array in features.items():
        assert np.ptp(array.astype(np.float32), axis=0).max() > 0.01, f"{name}: both clips are the same"


def test_official_networks_are_kept_as_they_are_and_the_branch_learned(made: Project, golden: Golden) -> None:
    backbone = load_file(made.path("data", "backbone.safetensors"))
    official = golden.weights("magnet_lm_small", ("transformer.layers.7.cross_attention", "emb.3", "linears.2"))
    cross = official["transformer.layers.7.cross_attention.in_proj_weight"].half().float()
    torch.testing.assert_close(backbone["blocks.7.cross.q.weight"], cross[:1024], rtol=0, atol=0)
    torch.testing.assert_close(backbone["blocks.7.cross.kv.weight"], cross[1024:], rtol=0, atol=0)
    torch.testing.assert_close(backbone["tables.3.weight"], official["emb.3.weight"].half().float(), rtol=0, atol=0)
    torch.testing.assert_close(backbone["heads.2.weight"], official["linears.2.weight"].half().float(), rtol=0, atol=0)
    control = load_file(made.path("data", "control.safetensors"))
    # After one step nothing but the zero linears had a gradient; they are no longer zero.
    assert all(control[f"zero_out.{block}.weight"].abs().max() > 0 for block in range(12))
    with made.path("metrics", "curves", "control.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert all(5 < float(row[name]) < 12 for name in ("loss", *(f"val_loss_level{level}" for level in range(4))))


def test_every_system_that_the_profile_has_makes_its_sounds(made: Project, params: Params) -> None:
    samples = made.path("data", "samples", "take-0")
    assert sorted(path.name for path in samples.iterdir()) == sorted([*SYSTEMS, "tokens"])
    drawn = {}
    for system in SYSTEMS:
        ids, arrays = read_arrays(samples / "tokens", system)
        assert ids == ["test-0", "test-1"]
        drawn[system] = arrays["tokens"]
        for name in ids:
            wave, rate = soundfile.read(samples / system / f"{name}.flac")
            assert (wave.shape, rate) == ((20_160,), 16_000)
            assert np.ptp(wave) > 0
    assert (drawn["specmaskfoley"] != drawn["backbone_text"]).any()
    np.testing.assert_array_equal(
        drawn["codec_roundtrip"], read_arrays(made.path("data", "tokens"), "test")[1]["tokens"]
    )
    assert params.sample.steps_of(params.backbone.levels) == (2, 1, 1, 1)


def test_the_table_leaves_out_the_system_that_the_profile_cannot_have(made: Project) -> None:
    systems = made.path("metrics", "systems")
    scores = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in systems.iterdir()}
    assert scores.pop("backbone_audio") == {}
    assert set(scores) == {"ground_truth", "shuffled", *SYSTEMS}
    assert all({"kl", "ib", "desync"} <= set(found) for found in scores.values())
    page = made.path("metrics", "report.html").read_text(encoding="utf-8")
    for text in (page, made.path("metrics", "table.md").read_text(encoding="utf-8")):
        assert "backbone, text" in text
        assert "backbone, audio" not in text


def test_an_export_tells_what_its_weights_fall_under(made: Project, tmp_path: Path) -> None:
    code, output = made.command("export", str(tmp_path / "model"))
    assert code == 0, output
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "license: other" in card
    assert "waveform tokens" in card
    assert "16000 Hz, mono, sound up to 8 kHz, in windows of 1.26 s" in card
    assert "`backbone.safetensors` holds the official weights magnet_small" in card
    assert "`control.safetensors` began as a copy of blocks of magnet_small" in card
    assert card.count("CC-BY-NC-4.0; NOT for commercial use") == 2
    exported = {str(path.relative_to(tmp_path / "model")) for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert {
        "codec.safetensors",
        "backbone.safetensors",
        "control.safetensors",
        "weights/t5-large/model.safetensors",
    } <= exported
    assert not [name for name in exported if "audio-magnet-small" in name], "what the first two hold already"
