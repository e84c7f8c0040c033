"""Stage tokens: clips and codec in, Parquet shards of token grids out."""

import torch

from specmaskfoley.audio.mel import MelSpectrogram, normalize
from specmaskfoley.config import Params
from specmaskfoley.networks import load_codec
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.clips import stream_clips
from specmaskfoley.storage.tables import SPLITS, ShardWriter, ready_clips


@torch.inference_mode()
def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    codec, mel = load_codec(params, device), MelSpectrogram(params.audio).to(device)
    fields = {"tokens": ("int16", (params.audio.token_rows, params.audio.token_columns))}
    for split in SPLITS:
        rows = ready_clips(params.paths.ledger, split)
        with ShardWriter(params.paths.tokens, split, fields, params.prepare.shard_rows) as shards:
            for clips in stream_clips(rows, params, batch_size=16, frames=False, title=f"tokens of {split}"):
                log_mel = mel(torch.from_numpy(clips.waveform).to(device))
                tokens = codec.encode(normalize(log_mel)[:, None]).tokens
                shards.append(clips.ids, tokens=tokens.to(torch.int16).cpu().numpy())


if __name__ == "__main__":
    stage_main(main)()
