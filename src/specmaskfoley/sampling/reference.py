"""Iterative decoding under Multi-CFG, written to be read (section 3.3, eq. 1).

`fast.Sampler` is what runs outside of training; tests compare its tokens with these.

Shape letters: B clips, N tokens a clip, n tokens that a level decides, K codes, M positions of the backbone's sequence,
D its width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from specmaskfoley.backbone.role import Backbone, Inputs
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.device import autocast
from specmaskfoley.sampling.guidance import Condition, Pass, Words, aligned_features
from specmaskfoley.settings import Decoding


@torch.inference_mode()
def sample_tokens(
    backbone: Backbone,
    control: ControlBranch | None,
    condition: Condition,
    *,
    plan: Sequence[Mapping[Pass, float]],
    settings: Decoding,
    seeds: Sequence[int],
    precision: str = "float32",
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Decode all masked tokens.

    Args:
        control: needed by passes with video.
        plan: weights of the passes of every step, see `guidance_plan`.
        seeds: one a clip.
        known: tokens (B, N) and a bool mask (B, N) of those to keep as they are.

    Returns:
        (B, N) int64.
    """
    decoding = backbone.plain_decoding(settings, seeds, known)
    aligned = aligned_features(control, condition) if any(one.video for weights in plan for one in weights) else None
    for number, (step, weights) in enumerate(zip(decoding.steps, plan, strict=True)):
        if step.count == 0:
            continue
        with autocast(precision, condition.prompt.device):
            logits = guided_logits(
                backbone, control, decoding.tokens, decoding.masked, condition, aligned, weights, step.level
            )
        decoding.decide(number, logits.float())
    return decoding.tokens


def guided_logits(
    backbone: Backbone,
    control: ControlBranch | None,
    tokens: Tensor,
    masked: Tensor,
    condition: Condition,
    aligned: Tensor | None,
    weights: Mapping[Pass, float],
    level: int = 0,
) -> Tensor:
    """Weighted sum of the passes' logits (eq. 1): (B, n, K)."""
    guided: Tensor | None = None
    for one, weight in weights.items():
        inputs = embed(backbone, tokens, masked, condition, one.prompt, level)
        residuals: list[Tensor] = []
        if one.video:
            if control is None or aligned is None:
                raise ValueError("this guidance mode needs the control branch and video features")
            residuals = control(inputs, aligned)
        logits = weight * backbone(inputs, residuals).float()
        guided = logits if guided is None else guided + logits
    assert guided is not None  # a step has at least one pass
    return guided


def embed(
    backbone: Backbone, tokens: Tensor, masked: Tensor, condition: Condition, words: Words, level: int = 0
) -> Inputs:
    """What enters the networks in a pass with these words.

    Raises:
        ValueError: the words are those that are not to be heard, and the condition has none.
    """
    with_words = torch.full(tokens.shape[:1], words != Words.NONE, device=tokens.device)
    if words != Words.NEGATIVE:
        return backbone.embed(tokens, masked, condition.prompt, with_words, level=level, at=condition.at)
    if condition.negative is None:
        raise ValueError("this guidance needs the embedding of what is not to be heard")
    return backbone.embed(tokens, masked, condition.negative, with_words, level=level)
