"""A model folder with the real networks at tiny sizes, not trained: for all that does not depend on how it sounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from helpers import ROOT
from helpers.tiny import shorten, shrink
from specmaskfoley.backbone.trained import backbone_description, build_backbone
from specmaskfoley.clips.world import LABELS
from specmaskfoley.codec.specvqgan.network import SpecVQGAN
from specmaskfoley.codec.trained import build_codec, codec_description
from specmaskfoley.control.trained import build_control, control_description
from specmaskfoley.encoders.trained import ROLES, build_encoder, encoder_description, encoder_file
from specmaskfoley.foley.knowledge import SOUNDS_FILE
from specmaskfoley.judges.mini_panel import MiniPanel
from specmaskfoley.media.writing import write_video
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import save_model


def shrink_waveform(raw: dict[str, Any]) -> None:
    """Make the profile mini_1d tiny and the active one, in place: windows of 80 columns, 1.86 s, and 4 codebooks."""
    shrink(raw)
    raw["profile"], raw["sample"]["steps"] = "mini_1d", None
    mini, own = raw["profiles"]["mini"], raw["profiles"]["mini_1d"]
    shared = ("audio", "video", "world", "prepare", "encoders", "control", "vocoder", "judges")
    own |= {name: mini[name] for name in shared}
    own["codec"] |= {"codebooks": 4, "codebook_size": 32, "code_width": 16, "channels": 4}
    own["backbone"] |= {"codebooks": 4, "depth": 2, "width": 32, "heads": 2, "mlp_width": 64}
    own["sample"]["steps"] = [3, 2, 1, 1]
    shorten(own)


def write_untrained(folder: Path, change: Callable[[dict[str, Any]], None] = shrink) -> Path:
    """Write params.yaml, changed, and the files that it names; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    change(raw)
    raw["paths"] = {name: str(folder / Path(path).name) for name, path in raw["paths"].items()}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    params = Params.load(folder / "params.yaml")
    torch.manual_seed(0)
    backbone = build_backbone(params)
    control = build_control(backbone, params)
    for parameter in control.parameters():  # a new branch changes nothing
        torch.nn.init.normal_(parameter, std=0.05)
    save_model(params.paths.codec, build_codec(params), **codec_description(params))
    save_model(params.paths.backbone, backbone, **backbone_description(params))
    save_model(params.paths.control, control, **control_description(params))
    for role in ROLES:
        if getattr(params.encoders, role).kind == "mini":
            encoder = build_encoder(ROLES[role], params)
            save_model(encoder_file(params, role), encoder, **encoder_description(params, role))
    panel = MiniPanel(params, params.judges, LABELS)
    save_model(params.paths.judges, panel, judges=params.judges, texts=list(LABELS))
    (folder / SOUNDS_FILE).write_text("\n".join(LABELS), encoding="utf-8")
    return folder


def hush(folder: Path) -> Path:
    """Make all sounds of such a model as good as silent: its codec gives the lowest mel whatever the tokens."""
    params = Params.load(folder / "params.yaml")
    codec = SpecVQGAN(params.codec)
    torch.nn.init.zeros_(codec.decoder.conv_out.weight)
    torch.nn.init.constant_(codec.decoder.conv_out.bias, -1.0)
    save_model(params.paths.codec, codec, **codec_description(params))
    return folder


def write_noise(path: Path, seconds: float, fps: int = 25) -> Path:
    """A video of noise with a tone."""
    frames = np.random.default_rng(0).integers(0, 255, (round(fps * seconds), 48, 64, 3), np.uint8)
    wave = 0.3 * np.sin(np.arange(round(16000 * seconds)) * 0.3).astype(np.float32)
    write_video(path, frames, fps, wave, 16000)
    return path
