"""The official networks: three forms of the same weights, lengths, times; BigVGAN and MelGAN against upstream's code.

Golden numbers of HiFi-GAN are in test_golden.py.

Shape letters: B batch, C channels, M mel bands, L mel frames, T time steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.signal
import torch
from helpers.golden_rule import golden_tensor
from torch import Tensor, nn

from specmaskfoley.settings import VOCODER_MELS
from specmaskfoley.vocoders.bigvgan import Activation, BigVGAN, Downsample, SnakeBeta, Upsample, halfband_filter
from specmaskfoley.vocoders.hifigan import HiFiGAN
from specmaskfoley.vocoders.melgan import MelGAN
from specmaskfoley.vocoders.weight_norm import NormedConv1d, NormedConvTranspose1d

OFFICIAL = {"hifigan": HiFiGAN, "bigvgan": BigVGAN, "melgan": MelGAN}
SMALL: dict[str, Callable[[], nn.Module]] = {
    "hifigan": lambda: HiFiGAN(channels=32),
    "bigvgan": lambda: BigVGAN(channels=64),
    "melgan": lambda: MelGAN(channels=32),
}


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return SMALL[request.param]().eval()


def rule(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by rule; BigVGAN's filters are no weights, though its files hold them."""
    return {name: v.clone() if name.endswith(".filter") else golden_tensor(name, v.shape) for name, v in own.items()}


def mels(frames: int, clips: int = 1) -> Tensor:
    return torch.randn(clips, 80, frames, generator=torch.Generator().manual_seed(5))


def modern(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """torch's names since 2.0."""
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        tensors = {name.replace(old, f"parametrizations.weight.{new}"): value for name, value in tensors.items()}
    return tensors


def folded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Plain kernels, as torch folds them."""
    plain = {name: value for name, value in tensors.items() if not name.endswith(("weight_g", "weight_v"))}
    for name in tensors:
        if name.endswith("weight_g"):
            stem = name.removesuffix("_g")
            plain[stem] = torch._weight_norm(tensors[f"{stem}_v"], tensors[name], 0)
    return plain


@pytest.mark.parametrize("kind", OFFICIAL)
def test_each_reads_the_mel_that_the_settings_say(kind):
    assert OFFICIAL[kind].mel == VOCODER_MELS[kind][0]


@pytest.mark.parametrize(
    ("kind", "tensors", "parameters"),
    [("hifigan", 234, 13_936_130), ("bigvgan", 784, 112_231_250), ("melgan", 126, 4_266_050)],
)
def test_size_is_the_official_one(kind, tensors, parameters):
    with torch.device("meta"):
        vocoder = OFFICIAL[kind]()
    assert len(vocoder.state_dict()) == tensors
    assert sum(parameter.numel() for parameter in vocoder.parameters()) == parameters


@pytest.mark.parametrize("frames", [16, 23])
@torch.inference_mode()
def test_a_frame_is_a_hop_of_sound(small, frames):
    wave = small(mels(frames, clips=2))
    assert wave.shape == (2, 256 * frames)
    assert wave.abs().max() <= 1


@torch.inference_mode()
def test_a_later_mel_sounds_later(small):
    mel, shift = mels(160), 7
    early, late = small(mel[..., shift:]), small(mel)
    middle = slice(60 * 256, 90 * 256)  # farther from both ends than any layer sees
    torch.testing.assert_close(early[:, middle], late[:, shift * 256 :][:, middle], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_changed_frame_is_heard_at_its_time(small):
    mel = mels(120)
    changed = mel.clone()
    changed[..., 60] += 1
    change = (small(changed) - small(mel))[0].double().square()
    centre = float((change * torch.arange(len(change))).sum() / change.sum()) / 256
    assert centre == pytest.approx(60.5, abs=1.0)


@torch.inference_mode()
def test_clips_of_a_batch_do_not_mix(small):
    mel = mels(16, clips=3)
    torch.testing.assert_close(small(mel)[1:2], small(mel[1:2]), atol=1e-6, rtol=1e-5)


def test_sound_is_float32_under_autocast(small):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert small(mels(16)).dtype == torch.float32


def test_periodic_activations_stay_in_float32_under_autocast():
    activation, x = Activation(4), torch.randn(2, 4, 50).bfloat16()
    with torch.inference_mode():
        expected = activation(x.float())
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(activation(x), expected)


@pytest.mark.parametrize("form", [dict, modern, folded])
@torch.inference_mode()
def test_the_three_forms_of_a_file_are_the_same_network(small, form):
    official = rule(small.state_dict())
    small.load_official(official, "g.pt")
    expected = small(mels(16))
    small.load_state_dict({name: torch.zeros_like(value) for name, value in official.items()})
    small.load_official(form(official), "g.pt")
    torch.testing.assert_close(small(mels(16)), expected, atol=1e-3, rtol=1e-3)


def wrong_magnitude(tensors: dict[str, Tensor], layer: str) -> None:
    tensors[f"{layer}.weight_g"] = torch.ones(1, 1, 1)


def no_magnitude(tensors: dict[str, Tensor], layer: str) -> None:
    del tensors[f"{layer}.weight_g"]


def stranger(tensors: dict[str, Tensor], layer: str) -> None:
    tensors[f"{layer}.weight_h"] = torch.ones(1)


def both_forms(tensors: dict[str, Tensor], layer: str) -> None:
    tensors[f"{layer}.weight"] = torch.ones(3, 3, 3)


def both_sets_of_names(tensors: dict[str, Tensor], layer: str) -> None:
    tensors[f"{layer}.parametrizations.weight.original0"] = tensors[f"{layer}.weight_g"]


def no_kernel(tensors: dict[str, Tensor], layer: str) -> None:
    tensors[f"{layer}.weight"] = torch.tensor(1.0)
    del tensors[f"{layer}.weight_g"], tensors[f"{layer}.weight_v"]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (wrong_magnitude, "1 of another shape"),
        (no_magnitude, r"1 missing \(.*weight_g\)"),
        (stranger, r"1 unknown \(.*weight_h\)"),
        (both_forms, r"1 unknown \(.*weight\)"),
        (both_sets_of_names, r"1 unknown \(.*original0\)"),
        (no_kernel, r"2 missing \(.*weight_g, .*weight_v\)"),
    ],
)
def test_other_weights_are_refused_by_their_official_names(small, spoil, named):
    tensors = rule(small.state_dict())
    layer = next(name.removesuffix(".weight_v") for name in tensors if name.endswith(".weight_v"))
    spoil(tensors, layer)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    with pytest.raises(ValueError, match=named) as raised:
        small.load_official(tensors, "g.pt")
    assert str(raised.value).startswith("g.pt: ")
    assert f"({layer}." in str(raised.value)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (NormedConv1d(6, 4, 5, padding=4, dilation=2), nn.Conv1d(6, 4, 5, padding=4, dilation=2)),
        (NormedConvTranspose1d(6, 4, 5, 3, padding=1), nn.ConvTranspose1d(6, 4, 5, 3, padding=1)),
    ],
)
def test_weight_norm_is_torchs(ours, torchs):
    torchs = nn.utils.parametrizations.weight_norm(torchs)
    tensors = rule(ours.state_dict())
    ours.load_state_dict(tensors)
    torchs.load_state_dict(modern(tensors))
    x = torch.randn(2, 6, 20)
    torch.testing.assert_close(ours(x), torchs(x), atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_bigvgan_gives_what_upstreams_code_gives():
    """Numbers of NVIDIA's code (v2.4, 128 channels) for weights by rule; a quiet last layer spares tanh."""
    vocoder = BigVGAN(channels=128).eval()
    vocoder.load_official(
        rule(vocoder.state_dict()) | {"conv_post.weight_g": torch.full((1, 1, 1), 0.05)}, "bigvgan_generator.pt"
    )
    wave = vocoder(mels(9, clips=2) * 2 - 5)
    first = [-0.05904470, -0.11429345, -0.09070493, 0.03244631, -0.10263406, 0.05710467]
    last = [0.27147323, 0.07007685, 0.26233408, 0.26307809, 0.03469146, 0.01260806]
    np.testing.assert_allclose(wave[0, :6], first, atol=1e-4)
    np.testing.assert_allclose(wave[1, -6:], last, atol=1e-4)
    assert wave.square().mean().item() == pytest.approx(0.19281790, rel=1e-4)


@torch.inference_mode()
def test_melgan_gives_what_upstreams_code_gives():
    """Numbers of SpecVQGAN's code for weights by rule."""
    vocoder = MelGAN().eval()
    vocoder.load_official(rule(vocoder.state_dict()), "best_netG.pt")
    wave = vocoder(torch.rand(2, 80, 17, generator=torch.Generator().manual_seed(5)))
    first = [0.00395997, -0.00311646, 0.02392026, 0.00051824, 0.03019977, 0.02868863]
    last = [0.04067582, 0.00899463, -0.00306742, -0.00913964, 0.0122917, 0.01938903]
    np.testing.assert_allclose(wave[0, :6], first, atol=1e-6)
    np.testing.assert_allclose(wave[1, -6:], last, atol=1e-6)
    assert wave.square().mean().item() == pytest.approx(0.00103475, rel=1e-4)


def test_halfband_filter_is_scipys():
    """Kaiser's design for a transition of 0.6 of the band, 51 dB."""
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(11, 0.6))
    expected = scipy.signal.firwin(12, 0.5, window=("kaiser", beta))
    np.testing.assert_allclose(halfband_filter().flatten(), expected, atol=1e-6)


def test_resampling_keeps_slow_waves_and_constants():
    time = torch.arange(200.0)
    wave = torch.stack([torch.ones(200), torch.sin(0.2 * time)])[None]
    twice = Upsample()(wave)
    assert twice.shape == (1, 2, 400)
    torch.testing.assert_close(twice[:, 0], torch.ones(1, 400), atol=1e-6, rtol=0)
    # An even filter has its centre between samples: the doubled wave lies at -1/4 and +1/4.
    found, expected = twice[0, 1, 50:350:2], torch.sin(0.2 * (time[25:175] - 0.25))
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)
    back = Downsample()(twice)
    torch.testing.assert_close(back[..., 20:180], wave[..., 20:180], atol=5e-3, rtol=0)


def test_snake_is_a_line_with_waves_on_it():
    snake = SnakeBeta(2)
    with torch.no_grad():
        snake.alpha.copy_(torch.tensor([0.0, math.log(3)]))
        snake.beta.copy_(torch.tensor([0.0, math.log(2)]))
        x = torch.linspace(-3, 3, 50).expand(1, 2, 50)
        expected = torch.stack([x[0, 0] + torch.sin(x[0, 0]) ** 2, x[0, 1] + torch.sin(3 * x[0, 1]) ** 2 / 2])
        torch.testing.assert_close(snake(x)[0], expected)


def test_activation_folds_back_less_of_the_harmonics():
    """A tone at 0.35 of the rate: its second harmonic, 0.7, appears at 0.3; twelve taps keep a quarter of it."""
    length = 1000
    tone = torch.sin(2 * math.pi * 0.35 * torch.arange(length))[None, None]
    activation = Activation(1)
    with torch.no_grad():
        folded_back = [
            torch.fft.rfft(made[0, 0] * torch.hann_window(length)).abs()[300].item()
            for made in (activation(tone), activation.act(tone))
        ]
    assert folded_back[0] < 0.3 * folded_back[1]
