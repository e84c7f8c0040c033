"""CLIP in the semantic encoder's role: DFN5B ViT-H/14 (Fang et al. 2023), the image tower alone, through open_clip.

Shape letters: B clips, u semantic frames, n images, S frame side (384), D feature width (1024).
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.weights.official import OfficialNetwork, paper_packages

ARCHITECTURE = "ViT-H-14-378-quickgelu"
"""open_clip's name. Its 27 x 27 patches of 14 pixels cover 378 x 378: the last 6 rows and columns are never read."""

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_OTHER_PARTS = (  # of open_clip's file of the whole model: the text tower and the scales
    "token_embedding.",
    "transformer.",
    "ln_final.",
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "logit_bias",
)


class ClipEncoder(OfficialNetwork):
    """L2-normalised frame vectors of what is visible: uint8 (B, u, S, S, 3) -> float32 (B, u, D).

    The recipe is MMAudio's (hkchengrex/MMAudio): frames at 8 fps, resized to S x S without regard to their aspect
    ratio (the reader does that), the tower's projected class token. Weights: `apple/DFN5B-CLIP-ViT-H-14-378`.

    Args:
        chunk: images that go through the tower at once; bounds memory, changes nothing else.

    Raises:
        ValueError: open_clip is not installed.
    """

    width = 1024
    frame_size = 384
    fps = 8.0
    ignored = _OTHER_PARTS
    half_on_cpu = False  # see `encode`

    def __init__(self, chunk: int = 16) -> None:
        super().__init__()
        with paper_packages("CLIP", "the package open_clip_torch"):
            open_clip: Any = importlib.import_module("open_clip")
        config = open_clip.get_model_config(ARCHITECTURE)
        self.chunk = chunk
        # The whole model would come with a text tower of 354 M parameters.
        build_tower = open_clip.model._build_vision_tower
        self.visual: nn.Module = build_tower(config["embed_dim"], config["vision_cfg"], config["quick_gelu"])

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (B, u, S, S, 3) -> (B, u, D) of length one.

        Raises:
            ValueError: the frames are not S x S.
        """
        if frames.shape[2:] != (self.frame_size, self.frame_size, 3):
            raise ValueError(
                f"the CLIP encoder reads RGB frames of {self.frame_size} x {self.frame_size} pixels, "
                f"not {list(frames.shape)}; have the reader resize them"
            )
        # Bytes become float32 chunk by chunk: a whole batch would take four times its memory.
        parts = (part.permute(0, 3, 1, 2).float() / 255.0 for part in torch.split(frames.flatten(0, 1), self.chunk))
        features = torch.cat([self.encode(normalize(part)).float() for part in parts])
        return F.normalize(features, dim=-1).view(*frames.shape[:2], self.width)

    def encode(self, images: Tensor) -> Tensor:
        """Images as `normalize` makes them, (n, 3, S, S) -> (n, D) before the L2 norm; float32 on a CPU."""
        # Not on a CPU: a bfloat16 projection of transposed tokens took 70 times a float32 one there (torch 2.11).
        with torch.autocast("cpu", enabled=False):
            return self.visual(images)  # type: ignore[no-any-return]


def normalize(images: Tensor) -> Tensor:
    """(n, 3, S, S) in 0..1 -> float32 with CLIP's mean and standard deviation of each channel taken out."""
    # Moved without waiting: made on the device, they would hold up the host at every chunk.
    channels = torch.tensor((_MEAN, _STD)).view(2, 3, 1, 1).to(images.device, non_blocking=True)
    return (images - channels[0]) / channels[1]
