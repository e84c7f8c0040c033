"""Every network on a GPU that has shapes and types alone, at full size: devices and types fit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from helpers import ROOT
from helpers.fake_gpu import CUDA, Watch, fake_gpu, on_gpu
from helpers.roberta import write_tokenizer
from torch import Tensor, nn

from specmaskfoley.backbone.objective import BackboneObjective
from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.codec.network import Codec
from specmaskfoley.control.objective import ControlObjective
from specmaskfoley.control.trained import build_control
from specmaskfoley.device import autocast
from specmaskfoley.encoders.clap import ClapEncoder
from specmaskfoley.encoders.clip import ClipEncoder
from specmaskfoley.encoders.synchformer import Synchformer, SynchformerEncoder
from specmaskfoley.judges.imagebind import ImageBind
from specmaskfoley.judges.passt import PaSST
from specmaskfoley.judges.vggish import VGGish
from specmaskfoley.settings import Params
from specmaskfoley.training.loop import _adamw
from specmaskfoley.vocoders.bigvgan import BigVGAN
from specmaskfoley.vocoders.hifigan import HiFiGAN
from specmaskfoley.vocoders.melgan import MelGAN

PARAMS = Params.load(ROOT / "params.yaml", "vggsound")
CLIPS, TOKENS = 2, PARAMS.audio.token_rows * PARAMS.audio.token_columns


def on_cuda(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=CUDA)


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    run: Callable[[Any], Any]
    shape: tuple[int, ...]
    package: str = "torch"


MEL = (CLIPS, PARAMS.audio.num_mels, 16 * PARAMS.audio.token_columns)
SOUND = (CLIPS, 256 * MEL[2])
CASES = {
    "synchformer": Case(
        SynchformerEncoder, lambda net: net(on_cuda(1, 32, 224, 224, 3, dtype=torch.uint8)), (1, 24, 768)
    ),
    "clip": Case(
        lambda: ClipEncoder(chunk=2),
        lambda net: net(on_cuda(1, 3, 384, 384, 3, dtype=torch.uint8)),
        (1, 3, 1024),
        "open_clip",
    ),
    "passt": Case(PaSST, lambda net: net(on_cuda(CLIPS, 320_000))[0], (CLIPS, 527), "hear21passt"),
    "vggish": Case(VGGish, lambda net: net(on_cuda(CLIPS, 160_000)), (CLIPS, 10, 128)),
    "imagebind, sound": Case(ImageBind, lambda net: net.encode_audio(on_cuda(CLIPS, 160_000)), (CLIPS, 1024)),
    "imagebind, video": Case(ImageBind, lambda net: net.encode_video(on_cuda(1, 3, 5, 3, 224, 224)), (1, 1024)),
    "synchformer, sound": Case(Synchformer, lambda net: net.encode_audio(on_cuda(CLIPS, 160_000)), (CLIPS, 30, 6, 768)),
    "synchformer, offset": Case(
        Synchformer, lambda net: net.compare(on_cuda(CLIPS, 14, 8, 768), on_cuda(CLIPS, 14, 6, 768)), (CLIPS, 21)
    ),
    "hifigan": Case(HiFiGAN, lambda net: net(on_cuda(*MEL)), SOUND),
    "bigvgan": Case(BigVGAN, lambda net: net(on_cuda(*MEL)), SOUND),
    "melgan": Case(MelGAN, lambda net: net(on_cuda(*MEL)), SOUND),
    "codec, decoder": Case(
        lambda: Codec(PARAMS.codec), lambda net: net.decode(on_cuda(CLIPS, 5, 53, dtype=torch.int64))[:, 0], MEL
    ),
    "codec, encoder": Case(
        lambda: Codec(PARAMS.codec), lambda net: net.encode(on_cuda(CLIPS, 1, *MEL[1:]))[0], (CLIPS, 5, 53)
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_network_at_full_size(name):
    case = CASES[name]
    pytest.importorskip(case.package)
    with torch.device("meta"):
        network = case.make().eval()
    assert run(network, case.run).shape == case.shape


def run(network: nn.Module, call: Callable[[Any], Any]) -> Tensor:
    """In the precision that a GPU takes by itself."""
    with fake_gpu(), torch.inference_mode(), Watch(strict=False), autocast("auto", CUDA):
        found = call(on_gpu(network))
    assert found.device == CUDA
    return found


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> ClapEncoder:
    pytest.importorskip("laion_clap")
    return ClapEncoder(write_tokenizer(tmp_path_factory.mktemp("roberta"))).eval()


def test_clap(clap):
    assert run(clap, lambda net: net.embed_audio(on_cuda(CLIPS, 480_000))).shape == (CLIPS, 512)
    assert run(clap, lambda net: net.embed_text(["a dog", "rain"])).shape == (2, 512)


def batch(clips: int) -> dict[str, Tensor]:
    """What a training step reads, on the host."""
    masked = torch.ones(clips, TOKENS, dtype=torch.bool)
    return {
        "tokens": torch.zeros(clips, 5, 53, dtype=torch.int16),
        "audio_prompt": torch.zeros(clips, 512),
        "sync": torch.zeros(clips, 240, 768, dtype=torch.float16),
        "semantic_mean": torch.zeros(clips, 1024),
        "masked": masked,
        "use_prompt": masked[:, 0],
        "weight": torch.zeros(clips),
    }


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["backbone", "control"])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_training_step(kind, precision, device):
    """The backward pass on the host alone: torch 2.11 asks the driver about a GPU there."""
    with torch.device("meta"):
        backbone = build_backbone(PARAMS)
        control = build_control(backbone, PARAMS)
    settings: dict[str, Any] = {"prompt_dropout": 0.1, "device": torch.device(device), "precision": precision}
    with fake_gpu(), Watch(strict=False):
        on_gpu(backbone).to(device), on_gpu(control).to(device)
        if kind == "backbone":
            objective = BackboneObjective(backbone, None, **settings)  # type: ignore[arg-type]
        else:
            objective = ControlObjective(backbone, control, None, **settings)  # type: ignore[arg-type]
        parameters = objective.groups()["model"]
        optimizer = _adamw(parameters, PARAMS.train_backbone.optim)
        loss, seen = objective.loss("model", batch(2), 0, torch.Generator())
        assert {loss.device.type, *(value.device.type for value in seen.values())} == {device}
        if device == "cpu":
            loss.backward()
        else:
            for parameter in parameters:
                parameter.grad = torch.empty_like(parameter)
        assert all(p.grad is not None and p.grad.dtype == p.dtype == torch.float32 for p in parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
