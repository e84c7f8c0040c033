"""Building without drawing: no random number is taken, constants are set, and after loading all is as ever."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from transformers import T5Config, T5EncoderModel

from specmaskfoley.foley import Foley
from specmaskfoley.weights.unfilled import Unfilled


def various() -> nn.ModuleDict:
    layers = {
        "linear": nn.Linear(8, 8),
        "convolution": nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 8, 3)),
        "transposed": nn.ConvTranspose2d(8, 8, 3),
        "table": nn.Embedding(8, 8, padding_idx=0),
        "attention": nn.MultiheadAttention(8, 2, add_bias_kv=True),
        "lstm": nn.LSTM(8, 8),
        "norm": nn.BatchNorm2d(8),
        "block": nn.TransformerEncoderLayer(8, 2, 16),
        "resnet": resnet18(),
        "t5": T5EncoderModel(T5Config(d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=32)),
    }
    for draw in (nn.init.trunc_normal_, nn.init.xavier_uniform_, nn.init.xavier_normal_, nn.init.kaiming_normal_):
        layers[draw.__name__] = made = nn.Linear(8, 8)
        draw(made.weight)
    return nn.ModuleDict(layers)


def test_nothing_is_drawn_and_what_is_loaded_is_all_there_is() -> None:
    plain = various()
    before = torch.get_rng_state()
    with Unfilled():
        unfilled = various()
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("norm.weight", "norm.running_var", "block.norm1.weight", "t5.encoder.final_layer_norm.weight"):
        assert unfilled.state_dict()[name].eq(1).all(), name
    assert unfilled["linear"].weight.shape == (8, 8)
    unfilled.load_state_dict(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(unfilled.state_dict()[name], value), name
    kept = dict(plain.named_buffers())
    assert all(torch.equal(value, kept[name]) for name, value in unfilled.named_buffers())


def test_after_it_weights_are_drawn_again() -> None:
    with Unfilled():
        nn.Linear(8, 8)
    torch.manual_seed(0)
    first = nn.Linear(8, 8)
    torch.manual_seed(0)
    assert torch.equal(nn.Linear(8, 8).weight, first.weight)
    assert first.weight.std() > 0.1


def test_a_model_is_loaded_without_drawing(model: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Foley.load(model, device="cpu")
    after = torch.get_rng_state()
    torch.manual_seed(loaded.params.seed)
    assert torch.equal(after, torch.get_rng_state())
    assert loaded.judges is not None
    assert torch.equal(after, torch.get_rng_state())
    takes = loaded.generate(video, candidates=2)
    monkeypatch.setattr("specmaskfoley.foley.system.Unfilled", nullcontext)
    filled = Foley.load(model, device="cpu")
    assert not torch.equal(after, torch.get_rng_state())
    for take, expected in zip(takes, filled.generate(video, candidates=2), strict=True):
        assert (take.waveform == expected.waveform).all()
        assert take.record == expected.record
