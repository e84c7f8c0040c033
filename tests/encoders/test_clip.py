"""The CLIP encoder with a small tower of open_clip's, and the official names and shapes without their values.

Shape letters: B clips, u semantic frames, S frame side, D feature width.
"""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from helpers import ROOT
from helpers.golden_rule import Golden, golden_tensor
from torch import Tensor

from specmaskfoley.encoders import trained
from specmaskfoley.encoders.clip import ARCHITECTURE, ClipEncoder, normalize
from specmaskfoley.settings import Params

open_clip = pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def official() -> ClipEncoder:
    """The whole tower, without values."""
    with torch.device("meta"):
        return ClipEncoder()


@pytest.fixture(scope="module")
def clip() -> ClipEncoder:
    """The same patches and outputs, in two narrow layers."""
    config = copy.deepcopy(open_clip.get_model_config(ARCHITECTURE))
    config["vision_cfg"] |= {"width": 32, "head_width": 16, "layers": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip, "get_model_config", lambda name: config)
        encoder = ClipEncoder(chunk=2).eval().requires_grad_(False)
    encoder.load_official({name: golden_tensor(name, value.shape) for name, value in encoder.state_dict().items()}, "-")
    return encoder


def frames(clips: int = 2, length: int = 3) -> Tensor:
    shape = (clips, length, ClipEncoder.frame_size, ClipEncoder.frame_size, 3)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@torch.inference_mode()
def test_frames_have_vectors_of_length_one(clip):
    features = clip(frames())
    assert features.shape == (2, 3, ClipEncoder.width)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2, 3))
    assert (features[0, 0] - features[0, 1]).abs().max() > 1e-3


@torch.inference_mode()
def test_on_a_cpu_the_tower_stays_in_float32(clip, monkeypatch):
    """Where load_encoder would round the weights, a CPU could no longer run the tower, which leaves autocast there."""
    params = Params.load(ROOT / "params.yaml", "vggsound")
    loaded = copy.deepcopy(clip)
    monkeypatch.setattr(trained, "build_encoder", lambda role, params: loaded)
    monkeypatch.setattr(trained, "load_weights", lambda name, params: (clip.state_dict(), "-"))
    encoder = trained.load_encoder(trained.SEMANTIC, params, torch.device("cpu"), torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder(frames()), clip(frames()))


@torch.inference_mode()
def test_chunks_change_nothing(clip):
    whole = clip.encode(normalize(frames().flatten(0, 1).permute(0, 3, 1, 2) / 255.0))
    torch.testing.assert_close(clip(frames()).flatten(0, 1), whole / whole.norm(dim=-1, keepdim=True))


@torch.inference_mode()
def test_the_last_six_rows_and_columns_are_not_read(clip):
    changed = frames()
    changed[:, :, 378:] = 0
    changed[:, :, :, 378:] = 0
    assert torch.equal(clip(changed), clip(frames()))
    changed[:, :, 377] = 0
    assert not torch.equal(clip(changed), clip(frames()))


@torch.inference_mode()
def test_pixels_are_normalised_channel_by_channel():
    grey = normalize(torch.full((1, 3, 2, 2), 0.5))
    expected = [(0.5 - 0.48145466) / 0.26862954, (0.5 - 0.4578275) / 0.26130258, (0.5 - 0.40821073) / 0.27577711]
    torch.testing.assert_close(grey[0, :, 0, 0], torch.tensor(expected))
    assert open_clip.OPENAI_DATASET_MEAN == (0.48145466, 0.4578275, 0.40821073)
    assert open_clip.OPENAI_DATASET_STD == (0.26862954, 0.26130258, 0.27577711)


@torch.inference_mode()
def test_autocast_leaves_the_tower_alone_on_a_cpu(clip):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = clip(frames())
    assert torch.equal(cast, clip(frames()))


@torch.inference_mode()
def test_in_bfloat16_the_tower_gives_nearly_the_same(clip):
    images = normalize(frames().flatten(0, 1).permute(0, 3, 1, 2) / 255.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = clip.visual(images).float()
    exact = clip.encode(images)
    assert ((rounded - exact).norm(dim=-1) / exact.norm(dim=-1)).max() < 0.03


@pytest.mark.parametrize("side", [224, 378])
def test_frames_of_another_size_are_refused(clip, side):
    with pytest.raises(ValueError, match="384 x 384"):
        clip(torch.zeros(1, 1, side, side, 3, dtype=torch.uint8))


def test_names_and_shapes_are_those_of_the_image_tower(official, golden: Golden):
    manifest = golden.manifest("dfn5b_clip_vit_h14_visual")
    assert {name: list(value.shape) for name, value in official.state_dict().items()} == manifest


def test_an_official_file_loads_without_its_text_tower(official):
    with torch.device("meta"):
        whole = open_clip.create_model(ARCHITECTURE, pretrained=None, device="meta", load_weights=False)
    official.load_official(whole.state_dict(), "open_clip_model.safetensors")


def test_other_files_are_refused(official):
    tensors = dict(official.state_dict())
    with pytest.raises(ValueError, match=r"file\.bin: .*1 unknown \(text_model\.final_layer_norm\.weight\)"):
        official.load_official(tensors | {"text_model.final_layer_norm.weight": torch.empty(1)}, "file.bin")
    with pytest.raises(ValueError, match=r"visual\.proj \[1280, 768\] instead of \[1280, 1024\]"):
        official.load_official(tensors | {"visual.proj": torch.empty(1280, 768)}, "file.bin")
    del tensors["visual.ln_post.bias"]
    with pytest.raises(ValueError, match=r"1 missing \(visual\.ln_post\.bias\)"):
        official.load_official(tensors, "file.bin")


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match=r"open_clip_torch.*\.\[paper\]"):
        ClipEncoder()
