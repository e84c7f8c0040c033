"""The mels that codecs learn from."""

from __future__ import annotations

import numpy as np
import torch
from helpers.untrained import write_untrained

from specmaskfoley.codec.data import load_mels, mel_rows
from specmaskfoley.media.mel import build_mel
from specmaskfoley.media.writing import write_audio
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import USABLE_SCHEMA, shard_path, write_table


def test_rows_hold_the_normalised_mels_of_clips_and_are_read_once(tmp_path):
    params = Params.load(write_untrained(tmp_path / "model") / "params.yaml")
    params = params.model_copy(update={"prepare": params.prepare.model_copy(update={"shard_rows": 2})})
    rate, samples = params.audio.sample_rate, params.audio.num_samples
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 2 * samples)).astype(np.float32)
    row = {"label": "", "split": "train", "sha256": "", "source": "folder", "state": "ready", "reason": ""}
    for index, wave in enumerate(noise):
        write_audio(tmp_path / f"{index}.wav", wave, rate, "PCM_24")
    clips = [row | {"clip_id": str(index), "path": str(tmp_path / f"{index}.wav")} for index in range(3)]
    write_table(params.paths.usable, [*clips, clips[0] | {"clip_id": "other", "split": "val"}], USABLE_SCHEMA)

    whole = load_mels(params, "train")
    assert whole.shape == (3, params.audio.num_mels, params.audio.num_frames)
    recipe = build_mel(params.audio)
    expected = recipe.normalize(recipe(torch.from_numpy(noise[:, :samples])))
    torch.testing.assert_close(whole[..., :-4], expected[..., :-4], atol=1e-2, rtol=0)  # the end: other samples follow

    found = mel_rows(params, "train", tmp_path / "rows")
    assert found.ids == ["0", "1", "2"]
    taken = found.take([2, 0])["mel"]
    assert taken.dtype == np.float16
    np.testing.assert_array_equal(taken, whole[[2, 0]].half().numpy())

    for index in (0, 1):  # of these the shard is there
        (tmp_path / f"{index}.wav").unlink()
    shard_path(tmp_path / "rows", "train", 1).unlink()
    again = mel_rows(params, "train", tmp_path / "rows")
    np.testing.assert_array_equal(again.take([0, 1, 2])["mel"], whole.half().numpy())
