"""Stage features: clips and encoders in; Parquet shards of video features and prompt embeddings out."""

import torch

from specmaskfoley.config import Params
from specmaskfoley.features import Features
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.clips import stream_media
from specmaskfoley.storage.tables import SPLITS, ShardWriter, ready_clips


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    encode = Features(params, start(params))
    encoders = params.encoders
    fields = {
        "sync": ("float16", (encode.num_sync, encoders.sync.width)),
        "semantic": ("float16", (params.num_semantic_frames, encoders.semantic.width)),
        "audio_prompt": ("float16", (encoders.prompt.width,)),
        "text_prompt": ("float16", (encoders.prompt.width,)),
    }
    for split in SPLITS:
        clips = ready_clips(params.paths.ledger, split)
        with ShardWriter(params.paths.features, split, fields, params.prepare.shard_rows) as shards:
            for media in stream_media(
                [clip.path for clip in clips],
                views=(encode.sync_view, encode.semantic_view),
                sounds=(encode.prompt_sound,),
                batch_size=encoders.batch_size,
                workers=params.run.workers,
                title=f"features of {split}",
            ):
                rows = clips[media.rows]
                sync, semantic = encode.video(
                    torch.from_numpy(media.frames[encode.sync_view]),
                    torch.from_numpy(media.frames[encode.semantic_view]),
                )
                arrays = {
                    "sync": sync,
                    "semantic": semantic,
                    "audio_prompt": encode.audio_prompt(torch.from_numpy(media.waves[encode.prompt_sound])),
                    "text_prompt": encode.text_prompt([clip.label for clip in rows]),
                }
                shards.append(
                    [clip.clip_id for clip in rows], **{name: array.cpu().numpy() for name, array in arrays.items()}
                )


if __name__ == "__main__":
    stage_main(main)()
