"""Every network on a GPU that has shapes and types alone, at full size: devices and types fit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from helpers import ROOT
from helpers.fake_gpu import on_cuda, run
from helpers.fake_training import take_step
from helpers.roberta import write_tokenizer
from torch import nn

from specmaskfoley.codec.specvqgan.network import SpecVQGAN
from specmaskfoley.encoders.clap import ClapEncoder
from specmaskfoley.encoders.clip import ClipEncoder
from specmaskfoley.encoders.synchformer import Synchformer, SynchformerEncoder
from specmaskfoley.judges.imagebind import ImageBind
from specmaskfoley.judges.passt import PaSST
from specmaskfoley.judges.vggish import VGGish
from specmaskfoley.settings import Params
from specmaskfoley.vocoders.bigvgan import BigVGAN
from specmaskfoley.vocoders.hifigan import HiFiGAN
from specmaskfoley.vocoders.melgan import MelGAN

PARAMS = Params.load(ROOT / "params.yaml", "vggsound")
CLIPS = 2


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    run: Callable[[Any], Any]
    shape: tuple[int, ...]
    package: str = "torch"


MEL = (CLIPS, PARAMS.audio.num_mels, 16 * PARAMS.grid.columns)
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
        lambda: SpecVQGAN(PARAMS.codec), lambda net: net.decode(on_cuda(CLIPS, 5, 53, dtype=torch.int64))[:, 0], MEL
    ),
    "codec, encoder": Case(
        lambda: SpecVQGAN(PARAMS.codec), lambda net: net.tokens(on_cuda(CLIPS, 1, *MEL[1:])), (CLIPS, 5, 53)
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_network_at_full_size(name):
    case = CASES[name]
    pytest.importorskip(case.package)
    with torch.device("meta"):
        network = case.make().eval()
    assert run(network, case.run).shape == case.shape


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> ClapEncoder:
    pytest.importorskip("laion_clap")
    return ClapEncoder(write_tokenizer(tmp_path_factory.mktemp("roberta"))).eval()


def test_clap(clap):
    assert run(clap, lambda net: net.embed_audio(on_cuda(CLIPS, 480_000))).shape == (CLIPS, 512)
    assert run(clap, lambda net: net.embed_text(["a dog", "rain"])).shape == (2, 512)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["backbone", "control"])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_training_step(kind, precision, device):
    take_step(PARAMS, kind, precision, device)
