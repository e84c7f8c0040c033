"""MaskGIT iterative decoding under Multi-CFG: a plain reference, and the fast sampler that gives the same tokens."""

from specmaskfoley.sampling.fast import Sampler
from specmaskfoley.sampling.guidance import (
    PROMPT,
    TEXT_VIDEO,
    UNCONDITIONAL,
    VIDEO,
    Condition,
    Row,
    guidance_plan,
    guidance_scale,
    guidance_weights,
    needs_video,
)
from specmaskfoley.sampling.reference import guided_logits, sample_tokens
from specmaskfoley.sampling.schedule import mask_counts

__all__ = [
    "PROMPT",
    "TEXT_VIDEO",
    "UNCONDITIONAL",
    "VIDEO",
    "Condition",
    "Row",
    "Sampler",
    "guidance_plan",
    "guidance_scale",
    "guidance_weights",
    "guided_logits",
    "mask_counts",
    "needs_video",
    "sample_tokens",
]
