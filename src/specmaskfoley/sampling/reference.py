"""MaskGIT iterative decoding under Multi-CFG, written to be read (section 3.3, eq. 1; Chang et al. 2022).

`fast.Sampler` is what runs outside of training; tests compare its tokens with these.

Shape letters: B clips, N tokens a clip, K codes, P prompt width, D backbone width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from specmaskfoley.backbone.network import Backbone
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.device import autocast
from specmaskfoley.sampling.guidance import Condition, Pass, Words, aligned_features, guidance_plan, needs_video
from specmaskfoley.sampling.noise import draw_noise
from specmaskfoley.sampling.schedule import mask_counts
from specmaskfoley.settings import GuidanceMode, Sample


@torch.inference_mode()
def sample_tokens(
    backbone: Backbone,
    control: ControlBranch | None,
    condition: Condition,
    *,
    mode: GuidanceMode,
    scale: float,
    start: float = 0.0,
    negative: float = 0.0,
    settings: Sample,
    seeds: Sequence[int],
    precision: str = "float32",
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Decode all masked tokens.

    Args:
        control: needed by modes with video.
        scale, start, negative: final Multi-CFG scale, where guidance begins, and the weight of what is not to be heard;
            see `guidance_plan`.
        seeds: one a clip.
        known: tokens (B, N) and a bool mask (B, N) of those to keep as they are.

    Returns:
        (B, N) int64.
    """
    device = condition.prompt.device
    batch, num_tokens = len(seeds), backbone.positions.shape[0]
    codes = backbone.tokens.num_embeddings
    draw, order = draw_noise(seeds, settings.steps, num_tokens, codes, device)
    tokens = torch.zeros(batch, num_tokens, dtype=torch.int64, device=device)
    masked = torch.ones(batch, num_tokens, dtype=torch.bool, device=device)
    if known is not None:
        tokens, masked = known[0].clone(), ~known[1]
    to_fill = masked.sum(1)
    share_left = mask_counts(num_tokens, settings.steps, settings.schedule)
    aligned = aligned_features(control, condition) if needs_video(mode) else None

    for step, weights in enumerate(guidance_plan(mode, settings.steps, scale, start, negative)):
        with autocast(precision, device):
            logits = guided_logits(backbone, control, tokens, masked, condition, aligned, weights)
        log_probs = logits.float().log_softmax(-1)
        # Gumbel-max: an exact draw from the categorical distribution.
        drawn = (log_probs + draw[step]).argmax(-1)
        tokens = torch.where(masked, drawn, tokens)

        confidence = log_probs.gather(-1, tokens[..., None])[..., 0]
        temperature = settings.gumbel_temperature * (1.0 - (step + 1) / settings.steps)
        confidence = confidence + temperature * order[step]
        confidence = confidence.masked_fill(~masked, math.inf)
        # The least confident are masked again. With known tokens the schedule shrinks in proportion.
        keep_masked = torch.div(to_fill * share_left[step], num_tokens, rounding_mode="floor")
        rank = confidence.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        masked = rank < keep_masked[:, None]
    return tokens


def guided_logits(
    backbone: Backbone,
    control: ControlBranch | None,
    tokens: Tensor,
    masked: Tensor,
    condition: Condition,
    aligned: Tensor | None,
    weights: dict[Pass, float],
) -> Tensor:
    """Weighted sum of the passes' logits (eq. 1), all passes in one batch: (B, N, K).

    Passes without video come first, so that the control branch runs only on the others.
    """
    passes = sorted(weights, key=lambda one: one.video)
    batch, count = tokens.shape[0], len(passes)
    x = torch.cat([embed(backbone, tokens, masked, condition, one.prompt) for one in passes])
    with_video = sum(one.video for one in passes)
    residuals: list[Tensor] = []
    if with_video:
        if control is None or aligned is None:
            raise ValueError("this guidance mode needs the control branch and video features")
        residuals = control(x[-with_video * batch :], aligned.repeat(with_video, 1, 1))
    logits = backbone(x, residuals).view(count, batch, tokens.shape[1], -1)
    scales = torch.tensor([weights[one] for one in passes], device=tokens.device)
    return torch.einsum("r,rbnk->bnk", scales, logits.float())


def embed(backbone: Backbone, tokens: Tensor, masked: Tensor, condition: Condition, words: Words) -> Tensor:
    """What enters the networks in a pass with these words: (B, N, D).

    Raises:
        ValueError: the words are those that are not to be heard, and the condition has none.
    """
    with_words = torch.full(tokens.shape[:1], words != Words.NONE, device=tokens.device)
    if words == Words.NEGATIVE:
        if condition.negative is None:
            raise ValueError("this guidance needs the embedding of what is not to be heard")
        return backbone.embed(tokens, masked, condition.negative, with_words)
    if condition.at is None:
        return backbone.embed(tokens, masked, condition.prompt, with_words)
    x = backbone.embed(tokens, masked, condition.prompt[:, 0], torch.zeros_like(with_words))
    for number, prompt in enumerate(condition.prompt.unbind(1)):
        x = torch.where((condition.at == number)[..., None], backbone.embed(tokens, masked, prompt, with_words), x)
    return x
