"""Encoders in half precision: weights are rounded once, not at every chunk, and the features are the same."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.fake_gpu import CUDA, Watch, fake_gpu, on_gpu
from helpers.untrained import write_untrained
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from specmaskfoley.device import autocast, round_weights
from specmaskfoley.encoders.clip import ClipEncoder
from specmaskfoley.encoders.features import Features
from specmaskfoley.encoders.synchformer import Aggregator, SpaceTimeBlock, SynchformerEncoder
from specmaskfoley.encoders.trained import SEMANTIC, SYNC, load_encoder
from specmaskfoley.settings import Params

CPU = torch.device("cpu")


class Casts(TorchDispatchMode):
    """Counts casts of the weights of a network that are matrices: autocast's rounding."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self._weights = {p.data_ptr() for network in networks for p in network.parameters() if p.ndim > 1}
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("to", "_to_copy") and args[0].data_ptr() in self._weights:
            self.count += result.dtype != args[0].dtype
        return result


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    """Of mini encoders with weights."""
    return Params.load(write_untrained(tmp_path_factory.mktemp("untrained")) / "params.yaml")


def at(params: Params, precision: str) -> Params:
    return params.model_copy(update={"run": params.run.model_copy(update={"precision": precision})})


def frames(made: Features) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randint(256, (2, view.frames, view.size, view.size, 3), generator=generator, dtype=torch.uint8)
        for view in (made.sync_view, made.semantic_view)
    )  # type: ignore[return-value]


def test_features_round_no_weight_and_are_those_of_weights_in_float32(params: Params):
    made = Features(at(params, "bfloat16"), CPU)
    seen = frames(made)
    with Casts(made.sync_encoder, made.semantic_encoder) as casts:
        found = made.video(*seen)
    assert casts.count == 0

    plain = [load_encoder(role, params, CPU) for role in (SYNC, SEMANTIC)]
    with Casts(*plain) as casts, torch.inference_mode(), autocast("bfloat16", CPU):
        expected = [encoder(part).half() for encoder, part in zip(plain, seen, strict=True)]
    assert casts.count > 0
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_in_float32_weights_stay_as_they_are(params: Params):
    made = Features(at(params, "float32"), CPU)
    for encoder in (made.sync_encoder, made.semantic_encoder, made.prompt_encoder):
        assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    halved = Features(at(params, "bfloat16"), CPU)  # prompts are made outside autocast
    assert {p.dtype for p in halved.prompt_encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("build", [Aggregator, SpaceTimeBlock])
def test_rounded_parts_of_synchformer_give_the_same(build):
    torch.manual_seed(0)
    plain = build().eval().requires_grad_(False)
    rounded = copy.deepcopy(plain)
    round_weights(rounded, torch.bfloat16)
    tokens = torch.randn(1, 8 * 4 + (build is SpaceTimeBlock), 768)
    with torch.inference_mode(), autocast("bfloat16", CPU):
        with Casts(rounded) as casts:
            assert torch.equal(rounded(tokens), plain(tokens))
        assert casts.count == 0
        with Casts(plain) as casts:
            plain(tokens)
    assert casts.count > 0
    assert all(m.weight.dtype == torch.float32 for m in rounded.modules() if isinstance(m, nn.LayerNorm))


@pytest.mark.parametrize(
    ("build", "shape", "chunks", "weights"),
    [
        # of 32 layers 8 weights and biases each, and the patches'
        pytest.param(lambda: ClipEncoder(chunk=2), (1, 4, 384, 384, 3), 2, 32 * 8 + 1, id="clip"),
        # of 12 layers 12 each, of the aggregator 8 (products of parts of one weight count twice), and the patches' 2
        pytest.param(SynchformerEncoder, (1, 16 + 8 * 15, 224, 224, 3), 2, 12 * 12 + 10 + 2, id="synchformer"),
    ],
)
def test_official_encoders_on_a_gpu_round_no_weight_twice(build, shape, chunks, weights):
    if build is not SynchformerEncoder:
        pytest.importorskip("open_clip")
    casts = []
    for half in (None, torch.bfloat16):
        with torch.device("meta"):
            encoder = build().eval().requires_grad_(False)
        with fake_gpu():
            on_gpu(encoder)
            round_weights(encoder, half)
            with torch.inference_mode(), Watch(strict=False) as watch, autocast("auto", CUDA):
                encoder(torch.empty(shape, dtype=torch.uint8, device=CUDA))
        casts.append(watch.kernels["_to_copy"])
    assert casts[0] - casts[1] == chunks * weights
