"""Stage sample: test clips' features and the trained models in; sounds, their tokens and a few videos out."""

from functools import partial
from pathlib import Path

import own_code
import torch

from specmaskfoley.device import announce, device_name, start
from specmaskfoley.media.sound import read_audio
from specmaskfoley.media.writing import mux, write_audio
from specmaskfoley.sampling.generator import Generator
from specmaskfoley.sampling.synthesis import Overlap, Sounds, synthesise
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import write_json
from specmaskfoley.storage.tables import ShardWriter, ready_clips
from specmaskfoley.systems import MADE_ON, OURS, generated, take_folder, takes_of


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    generator = Generator(params, start(params))
    announce(generator.device, generator.precision)
    rows = ready_clips(params.paths.usable, "test")
    shown = {row.clip_id: row.path for row in rows[: params.sample.videos]}
    folder, audio = Path(params.paths.samples), params.audio
    fields = {"tokens": ("int16", (params.grid.rows, params.grid.columns))}
    for system in generated(params):
        for take in takes_of(system, params):
            out = take_folder(params, system, take)
            videos = shown if system == OURS and take == 0 else {}
            with (
                ShardWriter(out.with_name("tokens"), system, fields, params.prepare.shard_rows) as shards,
                Overlap() as later,
            ):
                for sounds in synthesise(generator, system, take, params):
                    shards.append(sounds.ids, tokens=sounds.tokens.to(torch.int16).numpy())
                    later.run(partial(write, sounds, out, videos, params))
    for clip_id, path in shown.items():
        waveform = read_audio(path, sample_rate=audio.sample_rate, num_samples=audio.num_samples)
        write_audio(folder / "ground_truth" / f"{clip_id}.flac", waveform, audio.sample_rate)
    write_json(folder / MADE_ON, {"device": device_name(generator.device), "precision": generator.precision})


def write(sounds: Sounds, out: Path, videos: dict[str, str], params: Params) -> None:
    """Sounds of a batch as files, and those whose video is shown also under it."""
    rate = params.audio.sample_rate
    for clip_id, waveform in zip(sounds.ids, sounds.waveform.numpy(), strict=True):
        write_audio(out / f"{clip_id}.flac", waveform, rate)
        if clip_id in videos:
            mux(videos[clip_id], waveform, rate, Path(params.paths.samples) / "videos" / f"{clip_id}.mp4")


if __name__ == "__main__":
    own_code.run(main)
