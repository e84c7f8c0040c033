"""What the backbone learns from sounds without picture: their tokens and audio prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from specmaskfoley.clips.sounds import SoundPart, inspect_sounds, set_aside
from specmaskfoley.encoders import features
from specmaskfoley.encoders.trained import PROMPT, encoder_file, load_encoder
from specmaskfoley.extraction.extract import make_shards
from specmaskfoley.extraction.extractor import weight_sums
from specmaskfoley.extraction.tokens import TokenExtractor
from specmaskfoley.extraction.worker import ClipRow
from specmaskfoley.media.clips import MediaBatch
from specmaskfoley.media.frames import View
from specmaskfoley.media.sound import Sound
from specmaskfoley.processes.isolation import Lost
from specmaskfoley.settings import Params
from specmaskfoley.storage.shards import row_key
from specmaskfoley.storage.tables import LEDGER_SCHEMA, ShardWriter, summarise, write_table

SPLIT = "train"
"""The only split of the shards: clips alone decide how well the backbone does."""


class SoundExtractor:
    """Columns tokens (F, T), int16, as of stage tokens, and audio_prompt (*P), float16, as of stage features."""

    stage: ClassVar[str] = "audio"
    reads_label: ClassVar[bool] = False
    precision = "float32"
    views: tuple[View, ...] = ()

    def __init__(self, params: Params, device: torch.device) -> None:
        self._tokens = TokenExtractor(params, device)
        self._prompts = features.Prompts(load_encoder(PROMPT, params, device), device, params.audio.normalize)
        self.sounds: tuple[Sound, ...] = tuple(dict.fromkeys((*self._tokens.sounds, self._prompts.prompt_sound)))

    def encode(self, batch: MediaBatch, labels: Sequence[str]) -> dict[str, np.ndarray]:
        waveform = torch.from_numpy(batch.waves[self._prompts.prompt_sound])
        return {
            **self._tokens.encode(batch, labels),
            "audio_prompt": self._prompts.audio_prompt(waveform).cpu().numpy(),
        }

    @staticmethod
    def batch_size(params: Params) -> int:
        return TokenExtractor.batch_size(params)

    @staticmethod
    def settings(params: Params) -> list[Any]:
        prompt = params.encoders.prompt
        return [*TokenExtractor.settings(params), prompt, weight_sums(params, prompt)]

    @staticmethod
    def inputs(params: Params) -> list[str]:
        trained = params.encoders.train_prompt is not None
        return [*TokenExtractor.inputs(params), *([str(encoder_file(params, "prompt"))] if trained else [])]


def extract_sounds(params: Params) -> None:
    """The ledger and the shards of all sounds of `data.audio`; without any, both are empty.

    A sound that can be inspected but not read again is set aside too, and costs no other one.

    Raises:
        ValueError: a folder is wrong, or no sound is usable.
    """
    if not params.data.audio:
        _write_nothing(params)
        return
    while lost := _extract_usable(params):
        set_aside(params, lost)


def _extract_usable(params: Params) -> dict[str, Lost]:
    """Sounds that turn out unreadable; without any, ledger and shards are done."""
    parts = inspect_sounds(params)
    rows = [part.row for part in parts]
    write_table(params.paths.audio_ledger, rows, LEDGER_SCHEMA)
    print(f"audio: {summarise(rows)}", flush=True)
    ready = [_clip(part) for part in parts if part.row["state"] == "ready"]
    if not ready:
        raise ValueError(f"data.audio={list(params.data.audio)}: no usable sound: {summarise(rows)}")
    return make_shards(params, SoundExtractor, {SPLIT: ready}, params.paths.audio)


def _clip(part: SoundPart) -> ClipRow:
    row = part.row
    return ClipRow(row["clip_id"], row_key(row["sha256"], repr(part.start_s)), row["path"], row["label"], part.start_s)


def _write_nothing(params: Params) -> None:
    """A ledger and a shard without rows, for DVC and for readers."""
    write_table(params.paths.audio_ledger, [], LEDGER_SCHEMA)
    grid, prompt = params.grid, params.encoders.prompt
    columns: dict[str, tuple[str, tuple[int, ...]]] = {
        "tokens": ("int16", (grid.rows, grid.columns)),
        **({"audio_prompt": ("float16", prompt.shape)} if prompt.hears else {}),
    }
    with ShardWriter(params.paths.audio, SPLIT, columns, params.prepare.shard_rows):
        print("audio: data.audio names no folder: no sounds besides those of the clips")
