"""The vggsound profile on real clips: official networks, read from files of the official formats filled by rule.

Networks, pictures and sounds have their full sizes; only CLIP sees fewer frames than the profile's 80.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT
from helpers.golden_rule import Golden
from helpers.official_files import write_lock, write_official
from helpers.real_clips import SEMANTIC_FRAMES, real_project, without_judges
from helpers.tiny import Project

from specmaskfoley.evaluation.judging import judging
from specmaskfoley.evaluation.scoring import judged_take
from specmaskfoley.extraction.features import FeatureExtractor
from specmaskfoley.extraction.tokens import TokenExtractor
from specmaskfoley.extraction.worker import ClipRow, Unit, make_here
from specmaskfoley.judges.panel import Panel
from specmaskfoley.judges.trained import load_panel
from specmaskfoley.metrics.judged import Listened, Partners
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import read_shard, ready_clips

pytestmark = [pytest.mark.official, pytest.mark.timeout(1800)]
SPLIT, SECONDS = "train", 2.0
ENCODERS = ["roberta_base_vocab", "roberta_base_merges", "roberta_base_config", "synchformer", "dfn5b_clip", "clap"]


def paper(params: dict[str, Any]) -> None:
    """Two seconds, with the public codebook, and judges whose files are not needed for features, and large."""
    without_judges(params)
    profile = params["profiles"]["vggsound"]
    profile["audio"] |= {"mel": "specvqgan", "fmin": 125.0, "fmax": 7600.0}
    profile["audio"]["duration_s"] = SECONDS
    profile["video"]["semantic_fps"] = SEMANTIC_FRAMES / SECONDS
    profile["codec"]["weights"] = "specvqgan_vggsound"
    profile["train_codec"] = None
    profile["vocoder"] = {"kind": "griffin_lim", "iterations": 2, "momentum": 0.99}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory, golden: Golden, clips: Path) -> Iterator[Project]:
    """A project whose features and tokens were made of a real clip, which alone takes minutes."""
    root = tmp_path_factory.mktemp("paper")
    rows = {"clip": (min(clips.glob("*.mp4")), "playing violin, fiddle", SPLIT)}
    project = real_project(root, "vggsound", rows, [*ENCODERS, "specvqgan_vggsound"], golden, paper)
    for stage in ("fetch_weights", "clips", "prepare", "encoders", "codec"):
        code, output = project.stage(stage)
        assert code == 0, output
    # What stages features and tokens do with each unit of clips; they themselves want a clip of every split.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        patch.setenv("DVC_ROOT", str(project.root))
        params = Params.load("params.yaml")
        (row,) = ready_clips(params.paths.usable, SPLIT)
        for extractor in (FeatureExtractor, TokenExtractor):
            unit = Unit(project.path(f"{extractor.stage}.parquet"), (ClipRow(row.clip_id, "key", row.path, row.label),))
            assert make_here([unit], params, extractor) == {}
    yield project
    shutil.rmtree(root)  # 5 GB


def test_every_weight_file_was_taken_from_the_bundle_and_listed(extracted: Project) -> None:
    listed = json.loads(extracted.path("data", "weights.json").read_text(encoding="utf-8"))
    assert set(listed) == {*ENCODERS, "specvqgan_vggsound"}
    for entry in listed.values():
        assert extracted.path("weights", entry["file"]).stat().st_size == entry["size"]
        assert len(entry["sha256"]) == 64


def test_features_have_the_papers_widths(extracted: Project) -> None:
    ids, arrays = read_shard(extracted.path("features.parquet"))
    assert len(ids) == 1
    assert {name: array.shape[1:] for name, array in arrays.items()} == {
        "sync": (40, 768),
        "semantic": (SEMANTIC_FRAMES, 1024),
        "semantic_mean": (1024,),
        "audio_prompt": (512,),
        "text_prompt": (512,),
    }
    for name, array in arrays.items():
        assert array.dtype == (np.float32 if name == "semantic_mean" else np.float16)
        assert np.isfinite(array).all()
    mean = arrays["semantic"].astype(np.float32).mean(1)
    np.testing.assert_allclose(arrays["semantic_mean"], mean, atol=1e-6)
    for name in ("semantic", "audio_prompt", "text_prompt"):
        np.testing.assert_allclose(np.linalg.norm(arrays[name].astype(np.float32), axis=-1), 1.0, atol=2e-3)
    # Frames differ, and so do their features.
    assert np.ptp(arrays["sync"].astype(np.float32), axis=1).max() > 0.01


def test_tokens_have_the_codebooks_range(extracted: Project) -> None:
    _, arrays = read_shard(extracted.path("tokens.parquet"))
    tokens = arrays["tokens"]
    assert tokens.shape == (1, 5, 10)
    assert tokens.dtype == np.int16
    assert tokens.min() >= 0
    assert tokens.max() < 1024
    assert len(np.unique(tokens)) > 10


Judged = tuple[Panel, Listened, np.ndarray]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, golden: Golden, clips: Path) -> Iterator[Judged]:
    """The paper's judges on five seconds of two real clips: both are heard, the first is seen."""
    root = tmp_path_factory.mktemp("judges")
    write_official(["passt", "vggish", "imagebind", "synchformer"], root / "weights", golden)
    write_lock(root / "weights.lock.yaml")
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["profile"] = "vggsound"
    raw["profiles"]["vggsound"]["audio"]["duration_s"] = 5.0
    params = Params.from_mapping(raw)
    files = sorted(clips.glob("*.mp4"))[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("DVC_ROOT", str(root))
        panel = load_panel(params, torch.device("cpu"))
        panel.batch_size = 1  # batches are filled up
        with judging(panel, params) as judge:
            seen = judge.watch(files[:1])
            heard = judge.listen(files, [files[:1] * 2])
    yield panel, heard, seen
    shutil.rmtree(root)  # 4 GB


def test_the_papers_judges_have_their_shapes(judged: Judged) -> None:
    _, heard, seen = judged
    assert (heard.logits.shape, heard.embedding.shape) == ((2, 527), (2, 768))
    assert heard.stretches.shape == (2, 5, 128)
    assert (heard.joint.shape, seen.shape) == ((2, 1024), (1, 1024))
    assert heard.offsets[0].shape == (2, 2, 21)


def test_the_papers_judges_hear_who_plays_what(judged: Judged) -> None:
    panel, heard, seen = judged
    sounds = [heard.at(np.array([row])) for row in range(2)]
    own, other = (
        judged_take(
            sound, sounds[0], Partners(logits=sounds[0].logits, seen=seen, offsets=sound.offsets[0], grid=panel.grid)
        ).scores
        for sound in sounds
    )
    assert own["kl"] == pytest.approx(0, abs=1e-9)
    assert other["kl"] > 1e-3
    assert not {"fd", "fad"} & {*own, *other}  # of one clip
    assert own["ib"] != other["ib"]
    assert not np.allclose(sounds[0].offsets[0], sounds[1].offsets[0], atol=1e-2)
