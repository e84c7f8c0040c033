"""EnCodec against numbers that the official implementation gave for weights made by rule.

`pytest tests/test_golden_encodec.py --golden DIR` checks another set of the same layout.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.golden_rule import Golden, assert_golden, assert_summary
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from specmaskfoley.codec.encodec.network import EncodecNetwork
from specmaskfoley.settings import Encodec

pytestmark = pytest.mark.official  # 57 million parameters: 10 s, most of it for making them

NAME = "encodec16"


@pytest.fixture(scope="module")
def network(golden: Golden) -> EncodecNetwork:
    config = golden.spec(f"{NAME}_manifest")["config"]
    settings = Encodec(
        kind="encodec",
        inputs=1,
        codebooks=config["n_q"],
        codebook_size=config["bins"],
        code_width=config["dimension"],
        channels=config["n_filters"],
        strides=tuple(reversed(config["ratios"])),
        lstm_layers=config["lstm"],
    )
    made = EncodecNetwork(settings)
    assert {name: list(value.shape) for name, value in made.state_dict().items()} == golden.manifest(NAME)
    assert made.step == config["hop"]
    made.load_official(golden.weights(NAME), NAME)
    return made.eval()


def assert_output(golden: Golden, name: str, found: Tensor) -> None:
    """The summary of the whole, and what is stored of row 0: all, every tenth column, or both ends of a wave."""
    expected = golden.spec(NAME)["outputs"][name]
    stored = golden.arrays(NAME)[expected["npz"]]
    assert_summary(found, expected["summary"])
    row, half = found[:1], stored.shape[-1] // 2
    if stored.shape[-1] == -(-row.shape[-1] // 10):
        row = row[..., ::10]
    if "the first and the last" in expected["note"]:
        row = torch.cat([row[..., :half], row[..., -half:]], -1)
    assert_golden(row, stored)


@torch.inference_mode()
@pytest.mark.parametrize("length", ["short", "odd", "long"])
def test_a_sound_becomes_the_official_tokens_and_samples(golden: Golden, network: EncodecNetwork, length: str) -> None:
    spec, arrays = golden.spec(NAME), golden.arrays(NAME)
    wave = golden.inputs(NAME)[f"wave_{length}"][:, 0]
    columns = -(-wave.shape[-1] // network.step)
    assert_output(golden, f"latents_{length}", network.encode_latents(wave))

    tokens, expected = network.tokens(wave), spec["outputs"][f"tokens_{length}"]
    assert tokens.dtype == torch.int64
    assert tokens.shape == (len(wave), network.settings.codebooks, columns)
    official, gaps = arrays[expected["npz"]], arrays[expected["gaps"]]
    # Another rounding may choose the other of two codes that are equally near; what follows then is another sound.
    clear = np.minimum.accumulate(gaps, axis=1) > spec["tolerance"]["clear_gap"]
    assert clear.mean() >= spec["tolerance"]["token_agreement"]
    np.testing.assert_array_equal(tokens.numpy()[clear], official[clear])

    latents = network.lookup(torch.from_numpy(official).long())
    assert_output(golden, f"quantized_{length}", latents)
    decoded = network.decode_latents(latents)
    assert decoded.shape == (len(wave), columns * network.step)
    assert_output(golden, f"wave_{length}", decoded[:, None])


@torch.inference_mode()
def test_tokens_become_the_official_samples(golden: Golden, network: EncodecNetwork) -> None:
    tokens = golden.inputs(NAME)["tokens"]
    assert_output(golden, "wave_from_tokens", network.decode_latents(network.lookup(tokens))[:, None])


@torch.inference_mode()
def test_every_layer_gives_the_official_values(golden: Golden, network: EncodecNetwork) -> None:
    """So that a difference is found where it begins."""
    trace, seen = golden.spec(NAME)["trace_short"], dict[str, Tensor]()

    def note(name: str) -> RemovableHandle:
        return network.get_submodule(name).register_forward_hook(lambda _, args, output: seen.update({name: output}))

    hooks = [note(name) for name in trace]
    wave = golden.inputs(NAME)["wave_short"][:, 0]
    network.decode_latents(network.lookup(network.tokens(wave)))
    for hook in hooks:
        hook.remove()
    assert list(seen) == list(trace)
    for name, summary in trace.items():
        assert_summary(seen[name], summary)
