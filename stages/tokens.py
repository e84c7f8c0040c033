"""Stage tokens: clips and codec in, Parquet shards of token grids out."""

import torch

from specmaskfoley.audio.mel import build_mel
from specmaskfoley.config import Params
from specmaskfoley.networks import load_codec
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.clips import model_sound, stream_media
from specmaskfoley.storage.tables import SPLITS, ShardWriter, ready_clips


@torch.inference_mode()
def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    codec, mel, sound = load_codec(params, device), build_mel(params.audio).to(device), model_sound(params)
    fields = {"tokens": ("int16", (params.audio.token_rows, params.audio.token_columns))}
    for split in SPLITS:
        clips = ready_clips(params.paths.ledger, split)
        with ShardWriter(params.paths.tokens, split, fields, params.prepare.shard_rows) as shards:
            for media in stream_media(
                [clip.path for clip in clips],
                sounds=(sound,),
                batch_size=16,
                workers=params.run.workers,
                title=f"tokens of {split}",
            ):
                waveform = torch.from_numpy(media.waves[sound]).to(device)
                tokens = codec.encode(mel.normalize(mel(waveform))[:, None]).tokens
                ids = [clip.clip_id for clip in clips[media.rows]]
                shards.append(ids, tokens=tokens.to(torch.int16).cpu().numpy())


if __name__ == "__main__":
    stage_main(main)()
