"""MaskGIT iterative decoding under Multi-CFG (section 3.3, eq. 1; Chang et al. 2022).

Shape letters: B clips, N tokens a clip, K codes, P prompt width, R guidance rows, D backbone width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specmaskfoley.config import GuidanceMode, Sample
from specmaskfoley.models.backbone import Backbone
from specmaskfoley.models.control import ControlBranch
from specmaskfoley.runtime import autocast


@dataclass(frozen=True)
class Row:
    """One network pass of a step: with the control branch or not, with the prompt or the unconditional mask."""

    video: bool
    prompt: bool


UNCONDITIONAL = Row(video=False, prompt=False)
VIDEO = Row(video=True, prompt=False)
TEXT_VIDEO = Row(video=True, prompt=True)
PROMPT = Row(video=False, prompt=True)

_GUIDED: dict[GuidanceMode, tuple[Row, ...]] = {
    "multi": (TEXT_VIDEO, VIDEO),
    "no_text_video": (VIDEO,),
    "no_video": (TEXT_VIDEO,),
    "text": (PROMPT,),
    "audio": (PROMPT,),  # the prompt is then the embedding of a sound
}


def needs_video(mode: GuidanceMode) -> bool:
    return any(row.video for row in _GUIDED[mode])


def guidance_weights(mode: GuidanceMode, t: float) -> dict[Row, float]:
    """Weight of each row's logits in l_uncond + t * sum(l_row - l_uncond); rows of weight zero are left out."""
    guided = _GUIDED[mode]
    weights = {UNCONDITIONAL: 1.0 - t * len(guided), **dict.fromkeys(guided, t)}
    return {row: weight for row, weight in weights.items() if weight != 0.0}


def guidance_scale(step: int, steps: int, final: float) -> float:
    """t of eq. 1: rises linearly from 0 at the first step to `final` at the last (which a single step has at once)."""
    return final * step / (steps - 1) if steps > 1 else final


def mask_counts(num_tokens: int, steps: int, schedule: str = "cosine") -> list[int]:
    """How many tokens are still masked after each step: strictly falling as long as it can, 0 at the end."""
    counts = []
    left = num_tokens
    for step in range(1, steps + 1):
        progress = step / steps
        share = math.cos(math.pi / 2 * progress) if schedule == "cosine" else 1.0 - progress
        # At least one token settles a step; without this, many steps on a short grid would idle at the start.
        left = max(0, min(math.floor(num_tokens * share), left - 1)) if step < steps else 0
        counts.append(left)
    return counts


@dataclass(frozen=True)
class Condition:
    """What steers a batch of clips.

    prompt: (B, P) CLAP-role embedding of the text (or of a sound, mode `audio`).
    sync: (B, t, d) and semantic: (B, d) video features; None for modes without video.
    """

    prompt: Tensor
    sync: Tensor | None = None
    semantic: Tensor | None = None


class Noise:
    """Random numbers of one clip, drawn on the CPU from a seed of its own.

    A clip thus gets the same tokens whatever batch, order or device it is sampled in.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.device = device

    def gumbel(self, *shape: int) -> Tensor:
        uniform = torch.rand(shape, generator=self.generator)
        return -torch.log(-torch.log(uniform.clamp(1e-20, 1.0 - 1e-7))).to(self.device)


@torch.inference_mode()
def sample_tokens(
    backbone: Backbone,
    control: ControlBranch | None,
    condition: Condition,
    *,
    mode: GuidanceMode,
    scale: float,
    settings: Sample,
    seeds: Sequence[int],
    precision: str = "float32",
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Decode all masked tokens.

    Args:
        control: needed by modes with video.
        scale: final Multi-CFG scale.
        seeds: one a clip.
        known: tokens (B, N) and a bool mask (B, N) of those to keep as they are.

    Returns:
        (B, N) int64.
    """
    device = condition.prompt.device
    batch, num_tokens = len(seeds), backbone.positions.shape[0]
    noise = [Noise(seed, device) for seed in seeds]
    tokens = torch.zeros(batch, num_tokens, dtype=torch.int64, device=device)
    masked = torch.ones(batch, num_tokens, dtype=torch.bool, device=device)
    if known is not None:
        tokens, masked = known[0].clone(), ~known[1]
    to_fill = masked.sum(1)
    share_left = mask_counts(num_tokens, settings.steps, settings.schedule)
    aligned = _aligned(control, condition, mode)

    for step in range(settings.steps):
        weights = guidance_weights(mode, guidance_scale(step, settings.steps, scale))
        with autocast(precision, device):
            logits = guided_logits(backbone, control, tokens, masked, condition.prompt, aligned, weights)
        log_probs = logits.float().log_softmax(-1)
        # Gumbel-max: an exact draw from the categorical distribution.
        drawn = (log_probs + torch.stack([n.gumbel(num_tokens, log_probs.shape[-1]) for n in noise])).argmax(-1)
        tokens = torch.where(masked, drawn, tokens)

        confidence = log_probs.gather(-1, tokens[..., None])[..., 0]
        temperature = settings.gumbel_temperature * (1.0 - (step + 1) / settings.steps)
        confidence = confidence + temperature * torch.stack([n.gumbel(num_tokens) for n in noise])
        confidence = confidence.masked_fill(~masked, math.inf)
        # The least confident go back under the mask. With known tokens the schedule shrinks in proportion.
        keep_masked = torch.div(to_fill * share_left[step], num_tokens, rounding_mode="floor")
        rank = confidence.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        masked = rank < keep_masked[:, None]
    return tokens


def guided_logits(
    backbone: Backbone,
    control: ControlBranch | None,
    tokens: Tensor,
    masked: Tensor,
    prompt: Tensor,
    aligned: Tensor | None,
    weights: dict[Row, float],
) -> Tensor:
    """Weighted sum of the rows' logits, all rows in one batch: (B, N, K).

    Rows without video come first, so that the control branch runs only on the others.
    """
    rows = sorted(weights, key=lambda row: row.video)
    batch, count = tokens.shape[0], len(rows)
    use_prompt = torch.tensor([row.prompt for row in rows], device=tokens.device).repeat_interleave(batch)
    x = backbone.embed(tokens.repeat(count, 1), masked.repeat(count, 1), prompt.repeat(count, 1), use_prompt)
    with_video = sum(row.video for row in rows)
    residuals: list[Tensor] = []
    if with_video:
        if control is None or aligned is None:
            raise ValueError("this guidance mode needs the control branch and video features")
        residuals = control(x[-with_video * batch :], aligned.repeat(with_video, 1, 1))
    logits = backbone(x, residuals).view(count, batch, tokens.shape[1], -1)
    scales = torch.tensor([weights[row] for row in rows], device=tokens.device)
    return torch.einsum("r,rbnk->bnk", scales, logits.float())


def _aligned(control: ControlBranch | None, condition: Condition, mode: GuidanceMode) -> Tensor | None:
    if not needs_video(mode):
        return None
    if control is None or condition.sync is None or condition.semantic is None:
        raise ValueError(f"cfg.mode={mode} needs the control branch, sync and semantic features")
    return control.align(condition.sync, condition.semantic)
