"""Every component against numbers that the official implementations gave for weights made by rule.

`pytest tests/test_golden.py --golden DIR --clips DIR` checks another set of the same layout: nothing here knows
more of a set than its files say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchaudio
from helpers.golden_rule import Golden, assert_golden, assert_summary, golden_input, golden_tensor
from helpers.official_files import SPECVQGAN
from torch import Tensor

from specmaskfoley.codec.specvqgan.network import SpecVQGAN
from specmaskfoley.encoders.clip import ClipEncoder, normalize
from specmaskfoley.encoders.offsets import offset_grid
from specmaskfoley.encoders.synchformer import Synchformer, SynchformerEncoder
from specmaskfoley.judges.imagebind import ImageBind, clip_starts, log_mel_clips
from specmaskfoley.judges.passt import PaSST
from specmaskfoley.judges.vggish import VGGish
from specmaskfoley.media.frames import fit_picture, frame_times, read_frames
from specmaskfoley.media.mel import MelSpectrogram, SpecVQGANMel
from specmaskfoley.media.probe import probe
from specmaskfoley.metrics.desync import desync_per_clip
from specmaskfoley.metrics.frechet import frechet_distance
from specmaskfoley.metrics.ib import ib_per_clip
from specmaskfoley.metrics.inception import inception_score
from specmaskfoley.metrics.kl import kl_per_clip
from specmaskfoley.settings import HIFIGAN_RECIPE, SPECVQGAN_RECIPE, Audio
from specmaskfoley.vocoders.hifigan import HiFiGAN


def test_deterministic_weights_have_the_recorded_values(golden: Golden) -> None:
    for entry in golden.spec("rule_check")["entries"]:
        values = golden_tensor(entry["key"], entry["shape"]).flatten()
        np.testing.assert_allclose(values[: len(entry["first"])], entry["first"], rtol=1e-5, atol=1e-7)
        assert float(values[-1]) == pytest.approx(entry["last"], rel=1e-5)
        assert float(values.mean()) == pytest.approx(entry["mean"], rel=1e-3, abs=1e-6)
        assert float(values.std(unbiased=False)) == pytest.approx(entry["std"], rel=1e-4)


# ---- video ----

# How each extractor wants its frames, and the range to which it scales them: offset and gain of grey levels in 0..1.
VIDEO = {"clip": ("clip", 0.0, 1.0), "sync": ("crop", 0.5, 2.0), "imagebind": ("short_side", 0.0, 1.0)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each clip of the golden set, so that each absent clip is a skipped test with its reason."""
    if "golden_clip" in metafunc.fixturenames:
        clips = Golden(metafunc.config.getoption("--golden")).spec("video_preprocessing")["clips"]
        metafunc.parametrize("golden_clip", list(clips))


def scaled(pictures: np.ndarray, kind: str) -> np.ndarray:
    """uint8 (..., h, w, 3) as the extractor's (..., 3, h, w), but for means and standard deviations of its own."""
    _, offset, gain = VIDEO[kind]
    return (np.moveaxis(pictures, -1, -3).astype(np.float32) / 255 - offset) * gain


def test_frames_are_resized_to_the_same_bytes(golden: Golden) -> None:
    spec, arrays = golden.spec("video_preprocessing"), golden.arrays("video_preprocessing")
    # Without AVX2 torchvision computes in float32 and rounds, which may be a grey level off.
    native = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    limit = 0 if native else spec["tolerance"]["synthetic_u8"]
    picture = np.ascontiguousarray(np.moveaxis(arrays[spec["synthetic"]["frame"]["npz"]], 0, -1))
    for name in ("clip_384", "sync_224", "imagebind_short_side_224"):
        expected = spec["synthetic"][name]
        kind = name.split("_")[0]
        found = fit_picture(picture, size=int(name.split("_")[-1]), fit=VIDEO[kind][0])
        assert_summary(scaled(found, kind), expected["summary"], rel_l2=1e-4 if native else 2e-3)
        if "npz" in expected:
            stored = arrays[expected["npz"]]
            step = found.shape[0] // stored.shape[1]
            part = np.moveaxis(found[::step, ::step], -1, 0)
            assert part.shape == stored.shape
            assert np.abs(part.astype(int) - stored).max() <= limit


@pytest.mark.official
def test_clips_give_the_frames_of_both_official_rules(golden: Golden, clips: Path, golden_clip: str) -> None:
    names = golden.spec("video_preprocessing")["clips"]
    path = clips / f"{golden_clip}.mp4"
    if not path.is_file():
        assert any((clips / f"{name}.mp4").is_file() for name in names), f"{clips} holds none of the golden clips"
        pytest.skip(f"{path.name} is not in {clips}")
    expected = names[golden_clip]
    info = probe(path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stamps = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        starts = info.video_start_s + np.array([float((pts - stamps[0]) * stream.time_base) for pts in stamps])
    assert len(starts) == expected["frames"]
    assert [info.height, info.width] == expected["size"]
    assert info.fps == pytest.approx(expected["fps"], rel=1e-3)

    # Every frame as a thumbnail, thumbnails by both rules at each rate, and the probed frames.
    every = read_frames(path, times=starts, size=32)
    wanted = []
    for key in [key for key, value in expected.items() if isinstance(value, dict)]:
        kind, fps = re.fullmatch(r"(\w+?)_([\d.]+)fps", key).groups()
        for rule, name in (("timestamp", "timestamp_rule_indices"), ("rate_filter", "rate_filter_formula_indices")):
            times = frame_times(float(fps), len(expected[key][name]), rule=rule)
            wanted.append((key, rule, expected[key][name], read_frames(path, times=times, size=32, rule=rule)))
        if "probe_positions" in expected[key]:
            times = frame_times(float(fps), expected[key]["timestamp_rule_count"], rule="timestamp")
            size = 384 if kind == "clip" else 224
            times = times[expected[key]["probe_positions"]]
            frames = read_frames(path, times=times, size=size, fit=VIDEO[kind][0], rule="timestamp")
            wanted.append((key, "probe", kind, frames))

    for key, rule, detail, frames in wanted:
        section = expected[key]
        if rule == "probe":
            pixels, gain = scaled(frames, detail), VIDEO[detail][2]
            step = pixels.shape[-1] // 4
            # A decoder or colour converter of another build may differ by a grey level.
            axes = (1, 2, 3)
            np.testing.assert_allclose(pixels.mean(axes), section["probe_mean"], atol=0.004 * gain)
            np.testing.assert_allclose(pixels.std(axes), section["probe_std"], atol=0.004 * gain)
            grid = pixels[:, :, ::step, ::step].reshape(len(pixels), -1)
            stored = np.array(section["probe_grid"])
            np.testing.assert_allclose(grid[:, : stored.shape[1]], stored, atol=0.02 * gain)
            continue
        same = (frames == every[detail]).all(axis=(1, 2, 3))
        if rule == "timestamp":
            assert len(same) == section["timestamp_rule_count"]
            assert same.all(), f"{key}: other frames at positions {np.flatnonzero(~same)[:10]}"
        else:
            # The indices are a formula's for a constant rate; the set records how many the filter itself confirmed.
            assert same.sum() >= section["rate_filter_formula_matches"], f"{key}: {np.flatnonzero(~same)[:10]}"


# ---- metrics ----


def metric_features(spec: dict[str, Any]) -> np.ndarray:
    """`feature_recipe` of metrics.json."""
    x = torch.randn(spec["n"], spec["d"], generator=torch.Generator().manual_seed(spec["seed"]))
    x *= 1 / torch.sqrt(1 + torch.arange(spec["d"]) / 8)
    x += 0.5 * torch.roll(x, -1, dims=1)
    return ((x.relu() if spec["relu"] else x) + spec["shift"]).numpy()


def test_fd_is_the_official_number(golden: Golden) -> None:
    for case in golden.spec("metrics")["fd"]:
        distance = frechet_distance(metric_features(case["pred"]), metric_features(case["gt"]))
        assert distance == pytest.approx(case["fd_eigenvalue_f64"], rel=1e-6)
        assert distance == pytest.approx(case["fd_official_code"], rel=1e-5 if case["rank_deficient"] else 1e-6)


def test_kl_is_the_official_number(golden: Golden) -> None:
    for case in golden.spec("metrics")["kl"]:
        reference, generated = golden_input(case["gt_logits"]).numpy(), golden_input(case["pred_logits"]).numpy()
        assert kl_per_clip(reference, generated).mean() == pytest.approx(case["kl_softmax_f64"], rel=1e-6)
        assert kl_per_clip(generated, reference).mean() == pytest.approx(case["kl_if_reversed_wrong"], rel=1e-5)


def test_inception_score_is_the_official_number(golden: Golden) -> None:
    for case in golden.spec("metrics")["isc"]:
        logits = golden_input(case["logits"]).numpy()
        official = case["inception_score_mean"], case["inception_score_std"]
        assert inception_score(logits) == pytest.approx(official, rel=1e-6)
        assert inception_score(logits, splits=1) == pytest.approx((case["one_split_mean"], 0), rel=1e-6)


def test_ib_is_the_official_number(golden: Golden) -> None:
    case = golden.spec("metrics")["ib"]
    video = golden_input(case["video"])
    audio = golden_input(case["audio"]) + 0.3 * video
    assert ib_per_clip(video.numpy(), audio.numpy()).mean() == pytest.approx(case["ib_score"], rel=1e-6)


def test_desync_is_the_official_number(golden: Golden) -> None:
    case = golden.spec("metrics")["desync"]
    logits = torch.stack([golden_input(case["first"]), golden_input(case["last"])], dim=1).numpy()
    assert desync_per_clip(logits, offset_grid(2.0, 21)).mean() == pytest.approx(case["desync"], rel=1e-6)


# ---- judges of the paper ----


def test_vggish(golden: Golden) -> None:
    spec, stored = golden.spec("vggish")["outputs"], golden.arrays("vggish")
    model = VGGish().eval()
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == golden.manifest("vggish")
    model.load_official(golden.weights("vggish"), "golden weights")
    waveform = golden.inputs("vggish")["wave_16k"]
    with torch.inference_mode():
        examples, embedding = model.examples(waveform), model(waveform)
    assert_golden(examples[0, [0, -1]], stored["examples"])
    assert_summary(examples, spec["examples"]["summary"])
    assert_golden(embedding, stored["embedding"])
    assert_summary(embedding, spec["embedding"]["summary"])


@pytest.mark.official
def test_passt(golden: Golden) -> None:
    pytest.importorskip("hear21passt", reason="pip install -e '.[paper]'")
    spec, stored = golden.spec("passt"), golden.arrays("passt")
    model = PaSST().eval()
    own = {name: list(value.shape) for name, value in model.net.state_dict().items()}
    assert own == golden.manifest("passt_s_ap476")
    model.load_official(golden.weights("passt_s_ap476"), "golden weights")
    waveform = _silenced(golden.inputs("passt")["wave_32k"], spec["inputs"].get("edit", "none"))
    with torch.inference_mode():
        mel, (logits, embedding) = model.mel(waveform), model(waveform)
    assert_golden(mel[0, :, : stored["mel"].shape[-1]], stored["mel"])
    assert_golden(logits, stored["logits"])
    assert_golden(embedding, stored["embedding"])
    for name, found in (("mel", mel), ("logits", logits), ("embedding", embedding)):
        assert_summary(found, spec["outputs"][name]["summary"])


def _silenced(waveform: torch.Tensor, edit: str) -> torch.Tensor:
    """`edit` is "none", or names the sample from which on the waves are silent."""
    if edit == "none":
        return waveform
    sample = re.search(r"\d{4,}", edit.replace(",", ""))
    assert sample, f"{edit!r}: an edit that this test cannot repeat"
    waveform[..., int(sample[0]) :] = 0.0
    return waveform


class _MadeWhenRead(Mapping[str, torch.Tensor]):
    """Weights by the rule without room for all of them at once."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.shapes = {name: shape for name, shape in spec["keys"].items() if name not in spec["keep"]}

    def __getitem__(self, name: str) -> torch.Tensor:
        return golden_tensor(name, self.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


@pytest.mark.official
def test_imagebind(golden: Golden) -> None:
    spec, stored = golden.spec("imagebind"), golden.arrays("imagebind")
    outputs = spec["outputs"]
    with torch.device("meta"):
        model = ImageBind().eval()
    official = golden.manifest("imagebind_huge")
    needed = {name: shape for name, shape in official.items() if name.split(".")[1] in ("vision", "audio")}
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == needed
    model.to_empty(device="cpu")
    model.load_official(_MadeWhenRead(golden.spec("imagebind_huge_manifest")), "golden weights")

    inputs = golden.inputs("imagebind")
    waveform, rate = inputs["wave_16k"], model.sample_rate
    starts = [start / rate for start in clip_starts(waveform.shape[-1], rate)]
    np.testing.assert_allclose(starts, [start for start, _ in outputs["audio_clip_points_s"]], atol=1 / rate)
    with torch.inference_mode():
        mel = log_mel_clips(waveform, rate)
        found = {"audio": model.encode_audio(waveform), "video": model.encode_video(inputs["video_0_1"])}
    padding = mel[..., outputs["fbank_frames_before_padding"] :]
    assert (padding == padding[0, 0, 0, 0, 0]).all()
    assert_golden(mel[0, 0], stored["audio_mel"])
    assert_summary(mel, outputs["audio_mel"]["summary"])
    for name, vectors in found.items():
        assert_golden(vectors, stored[name])
        assert_summary(vectors, outputs[name]["summary"])
    cosine = torch.cosine_similarity(found["audio"], found["video"])
    assert float(cosine.mean()) == pytest.approx(spec["cosine"], abs=1e-4)


# ---- mel-spectrograms, the codec and its vocoder ----

HIFIGAN_AUDIO = Audio(duration_s=10.0, patch=16, **HIFIGAN_RECIPE)
SPECVQGAN_AUDIO = Audio(mel="specvqgan", duration_s=10.0, patch=16, **SPECVQGAN_RECIPE)


def whole(found: Tensor, name: str, part: str, golden: Golden) -> None:
    """One output against both its records: all of it, and as a summary."""
    output = golden.spec(name)["outputs"][part]
    assert_summary(found, output["summary"])
    assert_golden(found, golden.arrays(name)[output["npz"]])


def test_hifigan_mel(golden: Golden) -> None:
    mel = MelSpectrogram(HIFIGAN_AUDIO)
    whole(mel.filters, "hifigan_mel", "mel_basis", golden)
    whole(mel(golden.inputs("hifigan_mel")["wave_22k"]), "hifigan_mel", "mel", golden)


def test_specvqgan_mel(golden: Golden) -> None:
    mel = SpecVQGANMel(SPECVQGAN_AUDIO)
    whole(mel.filters, "specvqgan_mel", "mel_basis", golden)
    spec = golden.spec("specvqgan_mel")
    frames = spec["outputs"]["mel"]["shape"][-1]
    found = official_specvqgan_mel(mel, golden.inputs("specvqgan_mel")["wave_22k"], frames)
    whole(found, "specvqgan_mel", "mel", golden)
    error = np.abs(found.numpy() - golden.arrays("specvqgan_mel")["mel"])
    assert error.max() <= spec["tolerance"]["atol"]
    summary = spec["outputs"]["model_input"]["summary"]
    assert_summary(mel.normalize(middle(found, summary["shape"][-1])), summary)


def test_specvqgan_mel_of_the_official_examples(golden: Golden, clips: Path) -> None:
    """The published mels were made of better copies of these sounds: each clip has an error of its own."""
    mel, absent = SpecVQGANMel(SPECVQGAN_AUDIO), []
    for stem, record in golden.spec("specvqgan_mel")["parity_with_official_example_mels"].items():
        video, example = clips / f"{stem}.mp4", clips / f"{stem}_mel.npy"
        if not (video.is_file() and example.is_file()):
            absent.append(stem)
            continue
        official = np.load(example)
        wave = sixteen_bit_wave(video, SPECVQGAN_AUDIO.sample_rate)
        found = official_specvqgan_mel(mel, wave, official.shape[-1])
        assert np.abs(found.numpy() - official).mean() <= record["mean_abs"] + 0.001, stem
    if absent:
        pytest.skip(f"{clips} lacks {', '.join(absent)}")


@pytest.fixture(scope="module")
def specvqgan(golden: Golden) -> SpecVQGAN:
    with torch.device("meta"):
        codec = SpecVQGAN(SPECVQGAN).eval()
    manifest = golden.manifest("specvqgan_vggsound_codebook")
    assert {name: list(value.shape) for name, value in codec.state_dict().items()} == manifest
    codec = codec.to_empty(device="cpu")
    loss = {"loss.discriminator.main.0.weight": torch.zeros(1)}  # the official checkpoint's other content
    codec.load_official(golden.weights("specvqgan_vggsound_codebook") | loss, "official")
    return codec


@pytest.mark.official
@torch.inference_mode()
def test_specvqgan_codec(golden: Golden, specvqgan: SpecVQGAN) -> None:
    inputs = golden.inputs("specvqgan")
    assert_summary(specvqgan.encoder(inputs["mel"]), golden.spec("specvqgan")["encoder_output_summary"])
    assert_coded(specvqgan, inputs["mel"], "", golden)
    whole(specvqgan.decode(inputs["tokens"]), "specvqgan", "decoded_from_tokens", golden)


@pytest.mark.official
@torch.inference_mode()
def test_specvqgan_codec_of_a_real_mel(golden: Golden, clips: Path, specvqgan: SpecVQGAN) -> None:
    spec = golden.spec("specvqgan")
    file = clips / spec["inputs"]["real_mel"]["file"]
    if not file.is_file():
        pytest.skip(f"no {file}")
    columns = spec["outputs"]["real_decoded"]["shape"][-1]
    mel = 2 * middle(torch.from_numpy(np.load(file)).float(), columns) - 1
    assert_coded(specvqgan, mel[None, None], "real_", golden)


def assert_coded(codec: SpecVQGAN, mel: Tensor, prefix: str, golden: Golden) -> None:
    """Latents, tokens, and what the golden tokens decode to."""
    latents, tokens = codec.encode_latents(mel), golden.arrays("specvqgan")[f"{prefix}tokens"]
    whole(latents, "specvqgan", f"{prefix}prequant", golden)
    # Where the second nearest code is as near as the last bits, either is right.
    vectors, codebook = latents.permute(0, 2, 3, 1).double(), codec.quantize.embedding.weight.double()
    nearest, second = torch.cdist(vectors, codebook).square().topk(2, largest=False).values.unbind(-1)
    clear = (second - nearest > 1e-4).numpy()
    assert clear.mean() >= golden.spec("specvqgan")["tolerance"]["token_agreement"]
    np.testing.assert_array_equal(codec.assign(latents)[0].numpy()[clear], tokens[clear])
    whole(codec.decode(torch.from_numpy(tokens)), "specvqgan", f"{prefix}decoded", golden)


@torch.inference_mode()
def test_hifigan(golden: Golden) -> None:
    vocoder = HiFiGAN().eval()
    manifest = golden.manifest("hifigan_v1_generator")
    assert {name: list(value.shape) for name, value in vocoder.state_dict().items()} == manifest
    vocoder.load_official(golden.weights("hifigan_v1_generator"), "official")
    whole(vocoder(golden.inputs("hifigan")["mel"])[:, None], "hifigan", "wave", golden)


def official_specvqgan_mel(mel: SpecVQGANMel, wave: Tensor, frames: int) -> Tensor:
    """(N,) -> (M, frames): of upstream's ten seconds, zero-padded or cut."""
    samples = round(mel.audio.duration_s * mel.audio.sample_rate)
    return mel(F.pad(wave, (0, samples - len(wave)))[None])[0, :, :frames]


def middle(mel: Tensor, columns: int) -> Tensor:
    """Upstream's crop: (M, L) -> (M, columns)."""
    first = (mel.shape[-1] - columns) // 2
    return mel[:, first : first + columns]


def sixteen_bit_wave(path: Path, sample_rate: int) -> Tensor:
    """(N,): resampled by FFmpeg, the mean of the channels, rounded to 16 bits."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", rate=sample_rate)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        parts = [frame.to_ndarray().mean(0) for frame in [*frames, *resampler.resample(None)]]
    return torch.from_numpy(np.rint(np.concatenate(parts) * 32768).clip(-32768, 32767) / 32768).float()


# ---- semantic encoder ----


@pytest.mark.official
def test_dfn5b_clip(golden: Golden) -> None:
    official = golden.manifest("dfn5b_clip_vit_h14_visual")
    with torch.device("meta"):
        encoder = ClipEncoder().eval()
    assert {name: list(value.shape) for name, value in encoder.state_dict().items()} == official
    encoder.to_empty(device="cpu")
    encoder.load_official(_MadeWhenRead(golden.spec("dfn5b_clip_vit_h14_visual_manifest")), "golden weights")
    with torch.inference_mode():
        raw = encoder.encode(normalize(golden.inputs("dfn5b_clip")["frames_0_1"]))
    whole(raw, "dfn5b_clip", "raw", golden)
    whole(F.normalize(raw, dim=-1), "dfn5b_clip", "normalized", golden)


# ---- Synchformer ----


@pytest.fixture(scope="class")
def synchformer(golden: Golden) -> Synchformer:
    with torch.device("meta"):
        model = Synchformer()
    found = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert found == golden.manifest("synchformer")
    model.to_empty(device="cpu").load_official(golden.weights("synchformer"), "golden")
    return model.eval()


@pytest.mark.official
class TestSynchformer:
    """In a class, so that a gigabyte of weights goes when its tests are done."""

    @torch.inference_mode()
    def test_video_features(self, golden: Golden, synchformer: Synchformer) -> None:
        spec, visual = golden.spec("synchformer"), synchformer.vfeat_extractor
        frames = golden.inputs("synchformer")["video"]
        traced = {f"block{index}": block for index, block in enumerate(visual.blocks)}
        traced |= {"patch_embed_3d": visual.patch_embed_3d, "norm": visual.norm}
        trace: dict[str, Tensor] = {}

        def keep(name: str, out: Tensor) -> None:
            trace.setdefault(name, out[:1].clone())

        hooks = [
            module.register_forward_hook(lambda _module, _inputs, out, name=name: keep(name, out))
            for name, module in traced.items()
        ]
        features = synchformer.encode_video(frames)
        for hook in hooks:
            hook.remove()

        # Block by block first: where a network begins to differ says what is wrong in it.
        for name, summary in spec["trace_video_first_segment"].items():
            values = trace[name].double().flatten()
            scale = float(values.square().mean().sqrt())
            assert list(trace[name].shape) == summary["shape"], name
            assert float(values.mean()) == pytest.approx(summary["mean"], abs=1e-4 * scale), name
            assert float(values.std(unbiased=False)) == pytest.approx(summary["std"], rel=1e-4), name
            assert float(values.min()) == pytest.approx(summary["min"], rel=1e-3), name
            assert float(values.max()) == pytest.approx(summary["max"], rel=1e-3), name
            first = values[: len(summary["first"])].numpy()
            np.testing.assert_allclose(first, summary["first"], rtol=1e-3, atol=1e-3 * scale, err_msg=name)
        assert_summary(features, spec["outputs"]["video_features"]["summary"])
        assert_golden(features, golden.arrays("synchformer")["video_features"])

    @torch.inference_mode()
    def test_audio_features(self, golden: Golden, synchformer: Synchformer) -> None:
        outputs, arrays = golden.spec("synchformer")["outputs"], golden.arrays("synchformer")
        wave = golden.inputs("synchformer")["wave_16k"]
        for name, found in (
            ("audio_mel", synchformer.audio_mel(wave)),
            ("audio_features", synchformer.encode_audio(wave)),
        ):
            assert_summary(found, outputs[name]["summary"])
            assert_golden(found, arrays[name])

    @torch.inference_mode()
    def test_offsets(self, golden: Golden, synchformer: Synchformer) -> None:
        spec, arrays = golden.spec("synchformer"), golden.arrays("synchformer")
        given = golden.inputs("synchformer")
        logits = synchformer.compare(given["vis_feats"], given["aud_feats"])
        grid = synchformer.offset_grid()
        assert_summary(logits, spec["outputs"]["logits"]["summary"])
        assert_golden(logits, arrays["logits"])
        assert logits.argmax(1).tolist() == spec["outputs"]["logits"]["argmax"]
        np.testing.assert_allclose(grid, spec["class_grid"], atol=1e-6)
        for row, golden_desync in zip(logits, spec["desync_of_logits"], strict=True):
            assert desync_per_clip(row[None, None], grid).mean() == pytest.approx(golden_desync, abs=1e-6)

    @torch.inference_mode()
    def test_a_real_clip_from_end_to_end(self, golden: Golden, clips: Path, synchformer: Synchformer) -> None:
        spec, arrays = golden.spec("synchformer_clip"), golden.arrays("synchformer_clip")
        outputs, rel_l2 = spec["outputs"], spec["tolerance"]["rel_l2"]
        path = clips / spec["clip"]
        if not path.is_file():
            pytest.skip(f"no {path}; name a folder that holds it with --clips")

        wave = as_synchformer_hears(path, samples=spec["wave_16k_summary"]["shape"][-1])
        assert_summary(wave[0], spec["wave_16k_summary"])
        audio = synchformer.encode_audio(wave)
        segments = audio.shape[1]
        assert_summary(audio, outputs["audio_features"]["summary"])
        assert_golden(audio[:, [0, 13, segments - 14, segments - 1]], arrays["audio_features"])

        # Decoders differ by a grey level, so our own video features have a wider limit than all else. The golden ones
        # hold the classifier to the usual limit.
        windows = {"logits_first14": slice(None, 14), "logits_last14": slice(-14, None)}

        def compared(video: Tensor) -> Tensor:
            video = video.view(1, segments, 8, -1)
            return torch.stack([synchformer.compare(video[:, w], audio[:, w]) for w in windows.values()], dim=1)

        logits = compared(torch.from_numpy(arrays["video_features"]))
        for index, name in enumerate(windows):
            assert_golden(logits[:, index], arrays[name])
        assert logits.argmax(2).flatten().tolist() == outputs["argmax"]
        assert desync_per_clip(logits, synchformer.offset_grid()).mean() == pytest.approx(outputs["desync"], abs=1e-6)

        count = int(25 * wave.shape[1] / 16000)
        times = frame_times(25.0, count, rule="timestamp")
        frames = torch.from_numpy(read_frames(path, times=times, size=224, fit="crop", rule="timestamp"))[None]
        pixels = frames.double() / 127.5 - 1
        assert [float(pixels.mean()), float(pixels.std())] == pytest.approx(spec["frames_mean_std"], abs=rel_l2)
        encoder = SynchformerEncoder()
        encoder.vfeat_extractor = synchformer.vfeat_extractor
        assert encoder.num_features(count) == arrays["video_features"].shape[1]
        for segment in (0, 13, segments - 14, segments - 1):  # all would take minutes
            video = encoder(frames[:, 8 * segment : 8 * segment + 16])
            assert_golden(video, arrays["video_features"][:, 8 * segment : 8 * segment + 8], rel_l2=rel_l2)


def as_synchformer_hears(path: Path, *, samples: int) -> Tensor:
    """(1, samples) at 16 kHz: 16-bit samples, the mean of the channels, torchaudio's default resampling."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        rate = stream.codec_context.sample_rate
        to_16_bit = av.AudioResampler(format="s16p")
        blocks = [part.to_ndarray() for frame in container.decode(stream) for part in to_16_bit.resample(frame)]
    wave = torch.from_numpy(np.concatenate(blocks, axis=1)).float() / 32768
    return torchaudio.transforms.Resample(rate, 16000)(wave.mean(0, keepdim=True))[:, :samples]
