"""Multi-CFG (eq. 1): which network passes a step takes, and with what weight.

Shape letters: B clips, N tokens a clip, Q prompts of a clip, *P shape of a prompt, t sync frames, d feature width, M
positions of the backbone's sequence, D its width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from specmaskfoley.control.network import ControlBranch
from specmaskfoley.settings import GuidanceMode, Ramp


class Words(IntEnum):
    """What the masked tokens of a pass hold: the unconditional mask, what is to be heard, or what is not."""

    NONE = 0
    PROMPT = 1
    NEGATIVE = 2


@dataclass(frozen=True)
class Pass:
    """One network pass of a step: with the control branch or not, with which words."""

    video: bool
    prompt: Words


UNCONDITIONAL = Pass(video=False, prompt=Words.NONE)
VIDEO = Pass(video=True, prompt=Words.NONE)
TEXT_VIDEO = Pass(video=True, prompt=Words.PROMPT)
PROMPT = Pass(video=False, prompt=Words.PROMPT)

_GUIDED: dict[GuidanceMode, tuple[Pass, ...]] = {
    "multi": (TEXT_VIDEO, VIDEO),
    "no_text_video": (VIDEO,),
    "no_video": (TEXT_VIDEO,),
    "text": (PROMPT,),
    "audio": (PROMPT,),  # the prompt is then the embedding of a sound
}


def needs_video(mode: GuidanceMode) -> bool:
    return any(one.video for one in _GUIDED[mode])


def guidance_weights(mode: GuidanceMode, t: float, negative: float = 0.0) -> dict[Pass, float]:
    """Weight of each pass's logits in l_uncond + t * sum(l_pass - l_uncond), eq. 1; those of weight zero are absent.

    Args:
        negative: weight n of `t * n * (l - l_negative)`, which is added for words that are not to be heard. Both see
            the video where the mode does, so that what is unwanted is the difference that the words make.
    """
    guided, video = _GUIDED[mode], needs_video(mode)
    weights = {UNCONDITIONAL: 1.0 - t * len(guided), **dict.fromkeys(guided, t)}
    base = VIDEO if video else UNCONDITIONAL
    weights[base] = weights.get(base, 0.0) + t * negative
    weights[Pass(video=video, prompt=Words.NEGATIVE)] = -t * negative
    return {one: weight for one, weight in weights.items() if weight != 0.0}


def guidance_scale(step: int, steps: int, final: float, ramp: Ramp = "rising", guided: int = 1) -> float:
    """t of eq. 1: rises linearly from 0 at the first step to `final` at the last; a single step has `final` at once.

    Args:
        ramp: falling: MAGNeT's, from `final` to 1 by the cosine schedule of the masked share, spread over the passes.
        guided: how many.
    """
    if steps == 1:
        return final if ramp == "rising" else final / guided
    if ramp == "rising":
        return final * step / (steps - 1)
    masked = math.cos(math.pi / 2 * step / (steps - 1))
    return (masked * final + (1.0 - masked)) / guided


def guidance_plan(
    mode: GuidanceMode,
    steps: Sequence[int],
    final: float,
    start: float = 0.0,
    negative: float = 0.0,
    ramp: Ramp = "rising",
) -> list[dict[Pass, float]]:
    """Weights of the passes of every step.

    Args:
        steps: of every level of the backbone; guidance begins anew with each.
        negative: see `guidance_weights`; ramp: see `guidance_scale`.
        start: where rising guidance begins, from the first step (0) to the last (1). Steps before it take the mode's
            first pass alone, with all its conditions: t of eq. 1 is so small there that guidance would hardly
            condition.
    """
    alone, guided = {_GUIDED[mode][0]: 1.0}, len(_GUIDED[mode])
    return [
        alone
        if ramp == "rising" and step < start * (count - 1)
        else guidance_weights(mode, guidance_scale(step, count, final, ramp, guided), negative)
        for count in steps
        for step in range(count)
    ]


@dataclass(frozen=True)
class Condition:
    """What steers a batch of clips.

    prompt: (B, *P) embedding of the text (or of a sound, mode `audio`); with `at` (B, Q, *P): of several.
    sync: (B, t, d) and semantic: (B, d) video features; None for modes without video.
    at: (B, N) int64, which of several prompts a token takes, -1: none; None: there is one, for all.
    negative: (B, *P) of what is not to be heard; None: the plan has no such pass.
    """

    prompt: Tensor
    sync: Tensor | None = None
    semantic: Tensor | None = None
    at: Tensor | None = None
    negative: Tensor | None = None


def aligned_features(control: ControlBranch | None, condition: Condition) -> Tensor:
    """The aligned video features, which are the same in every step: (B, M, D).

    Raises:
        ValueError: the control branch or a feature is missing.
    """
    if control is None or condition.sync is None or condition.semantic is None:
        raise ValueError("cfg.mode with video needs the control branch, sync and semantic features")
    return control.align(condition.sync, condition.semantic)
