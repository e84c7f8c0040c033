"""Stage features: clips and encoders in; Parquet shards of video features and prompt embeddings out."""

import torch

from specmaskfoley.config import Params
from specmaskfoley.features import Features
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.clips import stream_clips
from specmaskfoley.storage.tables import SPLITS, ShardWriter, ready_clips


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    encode = Features(params, start(params))
    video, duration_s, encoders = params.video, params.audio.token_duration_s, params.encoders
    fields = {
        "sync": ("float16", (video.sync_frames(duration_s), encoders.sync.width)),
        "semantic": ("float16", (video.semantic_frames(duration_s), encoders.semantic.width)),
        "audio_prompt": ("float16", (encoders.prompt.width,)),
        "text_prompt": ("float16", (encoders.prompt.width,)),
    }
    for split in SPLITS:
        rows = ready_clips(params.paths.ledger, split)
        with ShardWriter(params.paths.features, split, fields, params.prepare.shard_rows) as shards:
            for clips in stream_clips(rows, params, batch_size=16, title=f"features of {split}"):
                sync, semantic = encode.video(
                    torch.from_numpy(clips.sync_frames), torch.from_numpy(clips.semantic_frames)
                )
                arrays = {
                    "sync": sync,
                    "semantic": semantic,
                    "audio_prompt": encode.audio_prompt(torch.from_numpy(clips.waveform)),
                    "text_prompt": encode.text_prompt(clips.labels),
                }
                shards.append(clips.ids, **{name: array.cpu().numpy() for name, array in arrays.items()})


if __name__ == "__main__":
    stage_main(main)()
