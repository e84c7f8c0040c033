"""audio.normalize: what codec and prompt encoder hear is scaled to a peak, what judges hear is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.untrained import write_untrained

from specmaskfoley.codec.data import load_mels
from specmaskfoley.extraction.features import FeatureExtractor
from specmaskfoley.extraction.sounds import SoundExtractor
from specmaskfoley.extraction.tokens import TokenExtractor
from specmaskfoley.judges.mini_panel import MiniPanel
from specmaskfoley.media.clips import MediaBatch, read_media
from specmaskfoley.media.writing import write_audio
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import USABLE_SCHEMA, write_table

CPU = torch.device("cpu")
PEAK = 0.95


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained networks, and the same noise loud and quiet."""
    made = write_untrained(tmp_path_factory.mktemp("normalize"))
    rate = Params.load(made / "params.yaml").audio.sample_rate
    noise = np.random.default_rng(0).uniform(-0.8, 0.8, 3 * rate).astype(np.float32)
    noise *= np.linspace(0, 1, len(noise), dtype=np.float32)
    write_audio(made / "loud.wav", noise, rate, "PCM_24")
    write_audio(made / "quiet.wav", 0.05 * noise, rate, "PCM_24")
    return made


def settings(folder: Path, normalize: float | None) -> Params:
    params = Params.load(folder / "params.yaml")
    return params.model_copy(update={"audio": params.audio.model_copy(update={"normalize": normalize})})


def heard(folder: Path, extractor: TokenExtractor | SoundExtractor) -> MediaBatch:
    return read_media([folder / "loud.wav", folder / "quiet.wav"], sounds=extractor.sounds)


@pytest.mark.parametrize("normalize", [None, PEAK])
def test_tokens_and_prompts_of_sounds_depend_on_their_level_or_not(folder: Path, normalize: float | None):
    extractor = SoundExtractor(settings(folder, normalize), CPU)
    made = extractor.encode(heard(folder, extractor), ["", ""])
    same = [np.allclose(made[name][0], made[name][1], atol=1e-3) for name in ("tokens", "audio_prompt")]
    assert same == [normalize is not None] * 2


def test_tokens_of_clips_and_the_codecs_mels_are_of_sound_at_the_peak(folder: Path):
    params = settings(folder, PEAK)
    waves = heard(folder, TokenExtractor(params, CPU)).waves
    np.testing.assert_allclose(np.abs(next(iter(waves.values()))).max(1), PEAK, rtol=1e-6)
    assert FeatureExtractor(params, CPU).sounds[0].peak == PEAK

    row = {"label": "", "split": "train", "sha256": "", "source": "folder", "state": "ready", "reason": ""}
    rows = [row | {"clip_id": name, "path": str(folder / f"{name}.wav")} for name in ("loud", "quiet")]
    write_table(params.paths.usable, rows, USABLE_SCHEMA)
    loud, quiet = load_mels(params, "train")
    torch.testing.assert_close(loud, quiet, atol=0.02, rtol=0)
    loud, quiet = load_mels(settings(folder, None), "train")
    assert (loud - quiet).mean() > 0.2


def test_judges_hear_sound_as_recorded(folder: Path):
    params = settings(folder, PEAK)
    assert MiniPanel(params, params.judges, ["one"]).sound.peak is None
