"""Features to tokens to sound: the trained parts put together.

Shape letters: B clips, F token rows, T token columns, S samples, t sync frames, u semantic frames, d feature
width, Q prompts of a clip, *P shape of a prompt.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from specmaskfoley.backbone.trained import build_backbone, load_backbone
from specmaskfoley.codec.trained import load_tokenizer
from specmaskfoley.control.trained import build_control, load_control
from specmaskfoley.sampling.fast import Sampler
from specmaskfoley.sampling.guidance import Condition, Pass, guidance_plan, needs_video
from specmaskfoley.settings import Params, Sampling


class Generator:
    """Features to tokens to sound.

    Args:
        trained: False takes new networks of the profile's sizes, whose sound is noise: to measure time and memory.
    """

    def __init__(self, params: Params, device: torch.device, *, trained: bool = True) -> None:
        self.params, self.device = params, device
        self.tokenizer = load_tokenizer(params, device, trained=trained)
        if trained:
            backbone = load_backbone(params, device)
            control = load_control(backbone, params, device)
        else:
            backbone = build_backbone(params).to(device).eval()
            control = build_control(backbone, params).to(device).eval()
        self.sampler = Sampler(backbone, control, precision=params.run.precision, int8=params.sample.int8)

    @property
    def precision(self) -> str:
        """Of the sampler: float32, bfloat16, or int8 with one of them around it."""
        around = str(self.sampler.dtype).removeprefix("torch.")
        return f"int8 and {around}" if self.params.sample.int8 else around

    def tokens(
        self,
        *,
        prompt: Tensor,
        sync: Tensor | None = None,
        semantic: Tensor | None = None,
        at: Tensor | None = None,
        negative: Tensor | None = None,
        seeds: Sequence[int],
        sampling: Sampling | None = None,
        known: tuple[Tensor, Tensor] | None = None,
        before_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Sample the tokens of a batch of clips.

        Args:
            prompt: (B, *P), or with `at` (B, Q, *P); sync: (B, t, d); semantic: (B, u, d).
            at: (B, F, T) which of several prompts a token takes, -1: none.
            negative: (B, *P) of what is not to be heard.
            seeds: one a clip, see `clip_seed`.
            sampling: None: as params.yaml says. Its own seed is not used.
            known: tokens (B, F, T) and a bool mask (B, F, T) of those to keep as they are.
            before_step: see `Sampler.sample`.

        Returns:
            (B, F, T) int64.
        """
        grid, how = self.params.grid, sampling or self.params.sampling
        with_video = needs_video(how.mode)
        condition = Condition(
            prompt=prompt.to(self.device),
            sync=sync.to(self.device) if with_video and sync is not None else None,
            semantic=semantic.float().mean(1).to(self.device) if with_video and semantic is not None else None,
            at=None if at is None else _flat(at, self.device),
            negative=None if negative is None else negative.to(self.device),
        )
        flat = self.sampler.sample(
            condition,
            plan=self.plan(how, negative=negative is not None),
            settings=how,
            seeds=seeds,
            known=None if known is None else (_flat(known[0], self.device), _flat(known[1], self.device)),
            before_step=before_step,
        )
        return flat.view(len(seeds), grid.rows, grid.columns)

    def plan(self, how: Sampling, *, negative: bool) -> list[dict[Pass, float]]:
        """See `guidance_plan`; guidance begins anew with each level, as in MAGNeT: all its tokens are masked then.

        Args:
            negative: whether something is not to be heard.
        """
        return guidance_plan(
            how.mode, how.steps_of(self.sampler.backbone.levels), how.scale, how.start,
            how.negative_scale if negative else 0.0, how.ramp,
        )  # fmt: skip

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> waveform (B, S) on the CPU."""
        return self.tokenizer.decode(tokens)


def _flat(grid: Tensor, device: torch.device) -> Tensor:
    """(B, F, T) -> (B, F * T)"""
    return grid.to(device).flatten(1)


def clip_seed(seed: int, clip_id: str) -> int:
    """The sampling seed of a clip: it does not depend on the other clips."""
    return zlib.crc32(f"{seed}/{clip_id}".encode())
