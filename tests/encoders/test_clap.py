"""The CLAP encoder against upstream's own path, with weights by rule, two RoBERTa layers and a tokenizer made here.

Shape letters: B waveforms, N samples, P prompt width.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ROOT
from helpers.golden_rule import golden_tensor
from helpers.roberta import write_tokenizer
from torch import Tensor

from specmaskfoley.encoders.clap import TOKENIZER_FILES, ClapEncoder
from specmaskfoley.judges.clap import ClapJudge
from specmaskfoley.media.sound import Sound
from specmaskfoley.settings import Params

if importlib.util.find_spec("laion_clap") is None:
    pytest.skip("laion-clap is not installed", allow_module_level=True)

TEXTS = ["a dog in the rain", "", "Rain!", "sound of 犬 barking " * 30]
CONSTANTS = ("attn_mask", "relative_position_index", "num_batches_tracked", "melW")
POSITIONS = "text_branch.embeddings.position_ids"


def by_rule(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by their names; what upstream computes when it builds the network stays."""
    return {
        name: value if name.endswith(CONSTANTS) or ".stft." in name else golden_tensor(name, value.shape)
        for name, value in tensors.items()
    }


def waves(count: int, samples: int) -> Tensor:
    """Tones with noise, (B, N)."""
    generator = torch.Generator().manual_seed(5)
    time = torch.arange(samples) / ClapEncoder.sample_rate
    pitch = 200.0 * 2 ** (4 * torch.rand(count, 1, generator=generator))
    return 0.3 * torch.sin(2 * torch.pi * pitch * time) + 0.02 * torch.randn(count, samples, generator=generator)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("roberta"))


@pytest.fixture(scope="module")
def upstream(tokenizer: Path) -> Iterator[Any]:
    """laion_clap's CLAP_Module, where everything named roberta-base is the tokenizer's folder."""
    import transformers

    roberta = transformers.RobertaConfig.from_json_file(tokenizer / "config.json")
    local = transformers.RobertaTokenizer.from_pretrained(str(tokenizer), local_files_only=True)
    before, path = set(sys.modules), list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        for of_hub in (transformers.BertTokenizer, transformers.BartTokenizer, transformers.RobertaTokenizer):
            patch.setattr(of_hub, "from_pretrained", staticmethod(lambda name: local))
        roberta_model = transformers.RobertaModel
        patch.setattr(roberta_model, "from_pretrained", staticmethod(lambda name: roberta_model(roberta)))
        import laion_clap

        module = laion_clap.CLAP_Module(enable_fusion=False, device="cpu", amodel="HTSAT-base")
    module.model.load_state_dict(by_rule(module.model.state_dict()))
    yield module.eval()
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("laion_clap", "clap_module"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def official(upstream: Any) -> dict[str, Tensor]:
    """What a checkpoint of upstream's holds: its state dict, and the position numbers of older transformers."""
    return dict(upstream.model.state_dict()) | {POSITIONS: torch.arange(514)[None]}


@pytest.fixture(scope="module")
def clap(tokenizer: Path, official: dict[str, Tensor]) -> ClapEncoder:
    encoder = ClapEncoder(tokenizer).eval().requires_grad_(False)
    encoder.load_official(official, "rule")
    return encoder


@pytest.mark.official
def test_names_and_shapes_are_upstreams(clap: ClapEncoder, official: dict[str, Tensor]) -> None:
    ours = {name: value.shape for name, value in clap.state_dict().items()}
    theirs = {name: value.shape for name, value in official.items()}
    left_out = {
        name for name in theirs if name.split(".")[0].endswith(("_transform", "logit_scale_a", "logit_scale_t"))
    }
    assert len(left_out) == 10
    assert ours == {name: shape for name, shape in theirs.items() if name not in left_out | {POSITIONS}}


@pytest.mark.official
@torch.inference_mode()
def test_sounds_embed_as_upstream_does(clap: ClapEncoder, upstream: Any) -> None:
    sounds = waves(3, clap.num_samples)
    found = clap.embed_audio(sounds)
    assert found.shape == (3, clap.width)
    torch.testing.assert_close(found, upstream.get_audio_embedding_from_data(sounds, use_tensor=True))
    assert (found[0] - found[1]).norm() > 0.05


@pytest.mark.official
@pytest.mark.parametrize("samples", [1, 100_000, 240_000, 479_999])
@torch.inference_mode()
def test_short_sounds_are_repeated_and_padded_as_upstream_does(clap: ClapEncoder, upstream: Any, samples: int) -> None:
    sounds = waves(1, samples)
    torch.testing.assert_close(
        clap.embed_audio(sounds), upstream.get_audio_embedding_from_data(sounds, use_tensor=True)
    )


@pytest.mark.official
@torch.inference_mode()
def test_of_long_sounds_the_first_ten_seconds_count(clap: ClapEncoder) -> None:
    sounds = waves(1, clap.num_samples + 50_000)
    torch.testing.assert_close(clap.embed_audio(sounds), clap.embed_audio(sounds[:, : clap.num_samples]))


@pytest.mark.official
@torch.inference_mode()
def test_texts_embed_as_upstream_does(clap: ClapEncoder, upstream: Any) -> None:
    found = clap.embed_text(TEXTS)
    assert found.shape == (len(TEXTS), clap.width)
    torch.testing.assert_close(found, upstream.get_text_embedding(TEXTS, use_tensor=True))
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(len(TEXTS)))
    assert torch.pdist(found).min() > 0.01


@pytest.mark.official
@torch.inference_mode()
def test_the_clap_score_is_av_benchmarks(clap: ClapEncoder, upstream: Any) -> None:
    """Its evaluate.py: the cosine of what laion_clap makes of caption and sound."""
    judge = ClapJudge(clap, Params.load(ROOT / "params.yaml", "vggsound"))
    assert judge.sound == Sound(48000, 480_000, "hann")
    texts, sounds = [text for text in TEXTS if text], waves(3, judge.sound.num_samples)
    official = torch.cosine_similarity(
        upstream.get_text_embedding(texts, use_tensor=True),
        upstream.get_audio_embedding_from_data(sounds, use_tensor=True),
        dim=-1,
    )
    found = judge.scores(judge.hear(sounds).numpy(), texts)["clap"]
    np.testing.assert_allclose(found, official.numpy(), atol=1e-6)
    assert np.isnan(judge.scores(judge.hear(sounds).numpy(), ["rain", "", "rain"])["clap"]).tolist() == [0, 1, 0]


@pytest.mark.official
@torch.inference_mode()
def test_each_sound_and_text_on_its_own(clap: ClapEncoder) -> None:
    sounds = waves(2, clap.num_samples)
    torch.testing.assert_close(clap.embed_audio(sounds)[1:], clap.embed_audio(sounds[1:]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(clap.embed_text(TEXTS)[1:2], clap.embed_text(TEXTS[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.official
@torch.inference_mode()
def test_silence_embeds(clap: ClapEncoder) -> None:
    assert torch.isfinite(clap.embed_audio(torch.zeros(1, 48_000))).all()


@pytest.mark.official
def test_a_sound_of_no_samples_is_refused(clap: ClapEncoder) -> None:
    with pytest.raises(ValueError, match="no samples"):
        clap.embed_audio(torch.zeros(1, 0))


@pytest.mark.official
@torch.inference_mode()
def test_no_random_numbers_are_drawn(clap: ClapEncoder) -> None:
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()
    clap.embed_audio(waves(1, clap.num_samples))
    clap.embed_text(TEXTS)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert (np.random.get_state()[1] == states[2]).all()


@pytest.mark.official
@torch.inference_mode()
def test_under_autocast_the_mel_stays_float32(clap: ClapEncoder) -> None:
    sounds = waves(2, clap.num_samples)
    seen = []
    hook = clap.audio_branch.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    exact = clap.embed_audio(sounds), clap.embed_text(TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = clap.embed_audio(sounds), clap.embed_text(TEXTS)
    hook.remove()
    assert torch.equal(*seen)
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32
        assert (a - b).norm(dim=-1).max() < 0.1


@pytest.mark.official
def test_other_files_are_refused(clap: ClapEncoder, official: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"clap\.pt: .*1 unknown \(audio_branch\.patch_embed\.mel_conv2d\.weight\)"):
        clap.load_official(official | {"audio_branch.patch_embed.mel_conv2d.weight": torch.empty(1)}, "clap.pt")
    without = {name: value for name, value in official.items() if name != "audio_branch.logmel_extractor.melW"}
    with pytest.raises(ValueError, match=r"1 missing \(audio_branch\.logmel_extractor\.melW\)"):
        clap.load_official(without, "clap.pt")
    with pytest.raises(ValueError, match=r"audio_branch\.norm\.weight \[768\] instead of \[1024\]"):
        clap.load_official(official | {"audio_branch.norm.weight": torch.empty(768)}, "clap.pt")


@pytest.mark.parametrize("name", TOKENIZER_FILES)
def test_a_missing_tokenizer_file_is_named(tmp_path: Path, name: str) -> None:
    (write_tokenizer(tmp_path) / name).unlink()
    with pytest.raises(ValueError, match=rf"{tmp_path}: .*{name}.*specmaskfoley weights fetch"):
        ClapEncoder(tmp_path)


def test_tokenizer_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"268 tokens, config\.json 50265"):
        ClapEncoder(write_tokenizer(tmp_path, vocab_size=50265))


def test_without_the_package_the_error_names_the_extra(tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in [name for name in sys.modules if name.startswith("_specmaskfoley_laion_clap")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ValueError, match=r"laion_clap is not installed.*\.\[paper\]"):
        ClapEncoder(tokenizer)


OFFLINE = """
import os, socket, sys
tried = []
def refuse(*args, **kwargs):
    tried.append(args)
    raise OSError("no network here")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
if sys.argv[2] == "hub first":
    import huggingface_hub
from specmaskfoley.encoders.clap import ClapEncoder
before = dict(os.environ), list(sys.path)
encoder = ClapEncoder(sys.argv[1]).eval()
assert encoder.embed_text(["rain"]).shape == (1, 512)
assert not tried, tried
assert (dict(os.environ), sys.path) == before
assert not {"laion_clap", "clap_module"} & set(sys.modules)
"""


@pytest.mark.official
@pytest.mark.parametrize(("offline", "order"), [(None, "package first"), (None, "hub first"), ("1", "package first")])
def test_building_needs_no_network_and_says_nothing(tokenizer: Path, offline: str | None, order: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    if offline is not None:
        environment["HF_HUB_OFFLINE"] = offline
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(tokenizer), order],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
