"""PaSST: the front end, and a package that keeps quiet."""

from __future__ import annotations

import contextlib
import io
import math
import sys
import warnings

import pytest
import torch
from torch import Tensor

from specmaskfoley.judges.passt import PaSST

SAMPLES = 320_000


@pytest.fixture(scope="module")
def passt() -> PaSST:
    pytest.importorskip("hear21passt", reason="pip install -e '.[paper]'")
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()) as printed, torch.device("meta"):
        made = PaSST()
    assert printed.getvalue() == ""
    assert not any(parameter.is_meta for parameter in made.parameters())  # the package cannot be built there
    return made.eval()


def noise(samples: int, clips: int = 1) -> Tensor:
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(1))


@pytest.mark.official
@torch.inference_mode()
def test_a_clip_is_tagged_without_a_word_or_a_random_number(passt, capfd):
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits, embedding = passt(noise(SAMPLES))
    assert (logits.shape, embedding.shape) == ((1, 527), (1, 768))
    assert (logits.dtype, embedding.dtype) == (torch.float32, torch.float32)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(state, torch.get_rng_state())


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "hear21passt.models.passt", None)
    with pytest.raises(ValueError, match=r"hear21passt.*pip install -e '\.\[paper\]'"):
        PaSST()


def test_ten_seconds_whatever_the_length(passt):
    wave = noise(SAMPLES + 999, clips=2)
    whole = passt.mel(wave)
    assert whole.shape == (2, 128, 1000)
    assert torch.equal(whole, passt.mel(wave[:, :SAMPLES]))
    short = wave[:, :256_000]
    padded = torch.cat([short, torch.zeros(2, SAMPLES - 256_000)], dim=1)
    assert torch.equal(passt.mel(short), passt.mel(padded))


def test_silence_is_the_logarithm_of_the_offset(passt):
    mel = passt.mel(torch.zeros(1, 10))
    torch.testing.assert_close(mel, torch.full_like(mel, (math.log(1e-5) + 4.5) / 5))


def test_the_front_end_ignores_autocast(passt):
    wave = noise(SAMPLES)
    with torch.autocast("cpu", torch.bfloat16):
        found = passt.mel(wave)
    assert torch.equal(found, passt.mel(wave))


def test_names_of_another_model_are_refused(passt):
    tensors = dict(passt.net.state_dict())
    tensors["head.1.weight"] = torch.zeros(50, 768)
    with pytest.raises(ValueError, match=r"p\.pt: not the weights of PaSST: 1 of another shape \(head\.1\.weight"):
        passt.load_official(tensors, "p.pt")
    with pytest.raises(ValueError, match=r"159 missing .* 159 unknown \(net\.cls_token"):
        passt.load_official({f"net.{name}": value for name, value in tensors.items()}, "p.pt")
