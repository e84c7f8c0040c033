"""The vggsound profile on real clips: official networks, read from files of the official formats filled by rule.

What is trained is tiny and sees a few steps; frames, features, tokens and judges have their full sizes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_rule import Golden
from official_files import write_lock, write_official
from tiny import Project

from specmaskfoley.storage.tables import SPLITS, read_arrays

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ENCODERS = ["roberta_base_vocab", "roberta_base_merges", "roberta_base_config", "synchformer", "dfn5b_clip", "clap"]


def paper(folder: Path, bundle: Path) -> Callable[[dict[str, Any]], None]:
    """The vggsound profile on a folder of clips, with the public codebook."""

    def change(params: dict[str, Any]) -> None:
        params["profile"] = "vggsound"
        params["data"] |= {"source": "folder", "folder": str(folder), "labels": str(folder / "labels.tsv")}
        params["run"] |= {"threads": 2, "precision": "bfloat16"}
        params["weights"]["bundle"] = str(bundle)
        profile = params["profiles"]["vggsound"]
        profile["audio"] |= {"mel": "specvqgan", "fmin": 125.0, "fmax": 7600.0}
        profile["codec"]["weights"] = "specvqgan_vggsound"
        profile["train_codec"] = None
        profile["vocoder"] = {"kind": "griffin_lim", "iterations": 2, "momentum": 0.99}

    return change


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory, golden: Golden, clips: Path) -> Project:
    """A project whose features and tokens were made of three real clips, one a split."""
    root = tmp_path_factory.mktemp("paper")
    folder, bundle = root / "clips", root / "bundle"
    folder.mkdir()
    rows = ["id\tlabel\tsplit"]
    for split, clip in zip(SPLITS, sorted(clips.glob("*.mp4")), strict=False):
        (folder / clip.name).symlink_to(clip)
        rows.append(f"{clip.stem}\tplaying violin, fiddle\t{split}")
    (folder / "labels.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    write_official([*ENCODERS, "specvqgan_vggsound"], bundle, golden)
    project = Project.create(root / "project", paper(folder, bundle))
    write_lock(project.path("weights.lock.yaml"))
    # The judges' files are not needed for features, and large.
    project.change(without_judges)
    for stage in ("fetch_weights", "clips", "prepare", "encoders", "features", "codec", "tokens"):
        code, output = project.stage(stage)
        assert code == 0, output
    return project


def without_judges(params: dict[str, Any]) -> None:
    params["profiles"]["vggsound"]["judges"] = params["profiles"]["mini"]["judges"]


def test_every_weight_file_was_taken_from_the_bundle_and_listed(extracted: Project) -> None:
    listed = json.loads(extracted.path("data", "weights.json").read_text(encoding="utf-8"))
    assert set(listed) == {*ENCODERS, "specvqgan_vggsound"}
    for entry in listed.values():
        assert extracted.path("weights", entry["file"]).stat().st_size == entry["size"]
        assert len(entry["sha256"]) == 64


@pytest.mark.parametrize("split", SPLITS)
def test_features_have_the_papers_shapes(extracted: Project, split: str) -> None:
    ids, arrays = read_arrays(str(extracted.path("data", "features")), split)
    assert len(ids) == 1
    assert {name: array.shape[1:] for name, array in arrays.items()} == {
        "sync": (240, 768),
        "semantic": (80, 1024),
        "audio_prompt": (512,),
        "text_prompt": (512,),
    }
    for array in arrays.values():
        assert array.dtype == np.float16
        assert np.isfinite(array).all()
    for name in ("semantic", "audio_prompt", "text_prompt"):
        np.testing.assert_allclose(np.linalg.norm(arrays[name].astype(np.float32), axis=-1), 1.0, atol=2e-3)
    # Frames differ, and so do their features.
    assert np.ptp(arrays["sync"].astype(np.float32), axis=1).max() > 0.01


@pytest.mark.parametrize("split", SPLITS)
def test_tokens_have_the_papers_shape(extracted: Project, split: str) -> None:
    _, arrays = read_arrays(str(extracted.path("data", "tokens")), split)
    tokens = arrays["tokens"]
    assert tokens.shape == (1, 5, 53)
    assert tokens.dtype == np.int16
    assert tokens.min() >= 0
    assert tokens.max() < 1024
    assert len(np.unique(tokens)) > 10
