"""The networks of the magnet profile on a GPU that has shapes and types alone, at full size."""

from __future__ import annotations

import pytest
import torch
from helpers import ROOT
from helpers.fake_gpu import on_cuda, run
from helpers.fake_training import take_step
from helpers.official_files import t5_tokenizer

from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.codec.trained import build_codec
from specmaskfoley.encoders.t5 import T5Encoder
from specmaskfoley.settings import Params

pytestmark = pytest.mark.official
PARAMS = Params.load(ROOT / "params.yaml", "magnet")
CLIPS, COLUMNS, CODES = 2, PARAMS.grid.columns, PARAMS.codec.codebook_size


def test_encodec_encodes():
    with torch.device("meta"):
        codec = build_codec(PARAMS).eval()
    found = run(codec, lambda net: net.tokens(on_cuda(CLIPS, PARAMS.audio.num_samples)), "float32")
    assert (found.shape, found.dtype) == ((CLIPS, 4, COLUMNS), torch.int64)


def test_encodec_decodes():
    with torch.device("meta"):
        codec = build_codec(PARAMS).eval()
    tokens = (CLIPS, 4, COLUMNS)
    found = run(codec, lambda net: net.decode(on_cuda(*tokens, dtype=torch.int64)), "float32")
    assert (found.shape, found.dtype) == ((CLIPS, PARAMS.audio.num_samples), torch.float32)


def test_t5(tmp_path):
    pytest.importorskip("transformers")
    t5_tokenizer(tmp_path / "tokenizer.json")
    with torch.device("meta"):
        encoder = T5Encoder(tmp_path, PARAMS.encoders.prompt.shape[0]).eval()
    found = run(encoder, lambda net: net.embed_text(["a dog barks", "rain", ""]))
    assert (found.shape, found.dtype) == ((3, 32, 1024), torch.float32)


@pytest.mark.parametrize(("level", "prompts"), [(0, 3), (3, 1)])
def test_magnet(level, prompts):
    with torch.device("meta"):
        backbone = build_backbone(PARAMS).eval()

    def predict(net):
        tokens = on_cuda(CLIPS, PARAMS.grid.size, dtype=torch.int64)
        prompt = on_cuda(CLIPS, *(() if prompts == 1 else (prompts,)), 32, 1024)
        at = None if prompts == 1 else tokens
        return net(net.embed(tokens, tokens.bool(), prompt, tokens[:, 0].bool(), level=level, at=at))

    assert run(backbone, predict).shape == (CLIPS, COLUMNS, CODES)


@pytest.mark.parametrize(
    ("device", "precision", "level"),
    [("cuda", "bfloat16", 0), ("cuda", "float16", 3), ("cpu", "bfloat16", 3), ("cpu", "float16", 0)],
)
def test_a_training_step_of_the_branch(device, precision, level):
    take_step(PARAMS, "control", precision, device, level)
