"""Audiobox Aesthetics: the numbers of the authors' own predictor, and files that are refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.golden_rule import Golden, assert_golden
from safetensors.torch import save_file
from torch import Tensor

from specmaskfoley.judges.aesthetics import AXES, Aesthetics, AestheticsJudge
from specmaskfoley.settings import Params
from specmaskfoley.weights.lock import read_lock

pytest.importorskip("audiobox_aesthetics", reason="pip install -e '.[paper]'")


@pytest.fixture(scope="module")
def config(golden: Golden) -> dict[str, Any]:
    return golden.spec("aesthetics")["config"]


@pytest.fixture(scope="module")
def network(golden: Golden, config: dict[str, Any]) -> Aesthetics:
    made = Aesthetics(config, "config.json").eval().requires_grad_(False)
    made.load_official(golden.weights("aesthetics"), "golden weights")
    return made


@pytest.mark.official
@torch.inference_mode()
def test_ratings_are_the_official_ones(golden: Golden, network: Aesthetics) -> None:
    """Of one stretch, of several, and of one that is cut short; the authors' predictor gave them by file."""
    spec = golden.spec("aesthetics")
    wave = golden.inputs("aesthetics")["wave_16k"]
    for case in spec["cases"]:
        found = network(wave[:, : case["samples"]])
        assert found.shape == (len(wave), len(AXES))
        assert_golden(found, torch.tensor([[row[axis.upper()] for axis in AXES] for row in case["ratings"]]).numpy())
        assert (found[0] - found[1]).abs().max() > 1e-3  # they depend on the sound


@pytest.mark.official
@torch.inference_mode()
def test_a_sound_is_rated_the_same_in_any_company(golden: Golden, network: Aesthetics) -> None:
    wave = golden.inputs("aesthetics")["wave_16k"][:, :100_000]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = network(wave)
    torch.testing.assert_close(together[1:], network(wave[1:]), rtol=1e-4, atol=1e-4)


@pytest.mark.official
def test_it_is_loaded_from_the_files_of_the_lock(
    tmp_path: Path, golden: Golden, config: dict[str, Any], params: Params
) -> None:
    lock, folder = read_lock(), Path(params.weights.folder)
    weights, described = (folder / lock[name].file for name in AestheticsJudge.weights)
    weights.parent.mkdir(parents=True)
    save_file(golden.weights("aesthetics"), weights)
    described.write_text(json.dumps(config))
    judge = AestheticsJudge.load(params).eval()
    heard = judge.hear(golden.inputs("aesthetics")["wave_16k"][:, : judge.sound.num_samples])
    scores = judge.scores(heard.numpy(), ["", ""])
    assert list(scores) == list(AXES)
    assert all(values.shape == (2,) for values in scores.values())
    (described).write_text(json.dumps(config | {"depth": 3}))
    (described.with_name("config.json.sums.json")).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"config\.json: not the config of Audiobox Aesthetics \(.*depth"):
        AestheticsJudge.load(params)


@pytest.fixture
def params(tmp_path: Path) -> Params:
    raw = Params.load().model_dump()
    raw["weights"]["folder"] = str(tmp_path / "weights")
    return Params.model_validate(raw)


def test_other_files_are_refused(golden: Golden, config: dict[str, Any]) -> None:
    without = {name: value for name, value in config.items() if name != "target_transform"}
    with pytest.raises(ValueError, match=r"c\.json: not the config of Audiobox Aesthetics"):
        Aesthetics(without, "c.json")
    network = Aesthetics(config, "c.json")
    shapes: dict[str, Tensor] = {name: torch.zeros(1) for name in golden.manifest("aesthetics")}
    shapes["decoder.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"x\.pt: not the weights of AesMultiOutput: 1 unknown \(decoder\.weight\)"):
        network.load_official(shapes, "x.pt")
