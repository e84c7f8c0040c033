"""MaskGIT's iterative decoding (Chang et al. 2022; section 3.3): which tokens a step settles.

Shape letters: B clips, N tokens a clip, K codes, S steps, m positions that a step computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from specmaskfoley.backbone.layers import take
from specmaskfoley.backbone.role import FastDecoding, PlainDecoding, Step
from specmaskfoley.backbone.specmaskgit.noise import draw_noise
from specmaskfoley.backbone.specmaskgit.schedule import mask_counts
from specmaskfoley.settings import Decoding


def _temperatures(how: Decoding, steps: int) -> list[float]:
    """Of the noise on the confidences, falling to 0 at the last step."""
    return [(how.gumbel_temperature or 0.0) * (1.0 - (step + 1) / steps) for step in range(steps)]


def _counts(how: Decoding, num_tokens: int) -> list[int]:
    """How many of all tokens are still masked after each step."""
    (steps,) = how.steps_of(1)
    return mask_counts(num_tokens, steps, how.schedule or "cosine")


class MaskGITDecoding(PlainDecoding):
    """Written to be read; see `QuickMaskGITDecoding` for what runs."""

    def __init__(
        self,
        how: Decoding,
        seeds: Sequence[int],
        known: tuple[Tensor, Tensor] | None,
        num_tokens: int,
        codes: int,
        device: torch.device,
    ) -> None:
        self._left = _counts(how, num_tokens)
        count = len(self._left)
        self._draw, self._order = draw_noise(seeds, count, num_tokens, codes, device)
        self._temperatures = _temperatures(how, count)
        self.tokens = torch.zeros(len(seeds), num_tokens, dtype=torch.int64, device=device)
        self.masked = torch.ones(len(seeds), num_tokens, dtype=torch.bool, device=device)
        most = num_tokens
        if known is not None:
            self.tokens, self.masked = known[0].clone(), ~known[1]
            most = int(self.masked.sum(1).max())
        self._to_fill = self.masked.sum(1)
        self.steps = [Step(0, most * left // num_tokens) for left in (num_tokens, *self._left[:-1])]

    def decide(self, step: int, logits: Tensor) -> None:
        log_probs = logits.float().log_softmax(-1)
        # Gumbel-max: an exact draw from the categorical distribution.
        drawn = (log_probs + self._draw[step]).argmax(-1)
        self.tokens = torch.where(self.masked, drawn, self.tokens)

        confidence = log_probs.gather(-1, self.tokens[..., None])[..., 0]
        confidence = confidence + self._temperatures[step] * self._order[step]
        confidence = confidence.masked_fill(~self.masked, math.inf)
        # The least confident are masked again. With known tokens the schedule shrinks in proportion.
        keep_masked = torch.div(self._to_fill * self._left[step], logits.shape[1], rounding_mode="floor")
        rank = confidence.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        self.masked = rank < keep_masked[:, None]


class QuickMaskGITDecoding(FastDecoding):
    """The tensors are draw (S, B, N, K) and order (S, B, N), the noise, and keep (S + 1, B): how many tokens are masked
    before each step and after the last."""

    def __init__(
        self,
        how: Decoding,
        seeds: Sequence[int],
        known: tuple[Tensor, Tensor] | None,
        num_tokens: int,
        codes: int,
        device: torch.device,
    ) -> None:
        self._codes, batch = codes, len(seeds)
        shares = _counts(how, num_tokens)
        if known is None:
            self.tokens, to_fill = torch.full((batch, num_tokens), codes, device=device), [num_tokens] * batch
            self.at = torch.arange(num_tokens, device=device).expand(batch, -1)
        else:
            self.tokens, to_fill = known[0].masked_fill(~known[1], codes), (~known[1]).sum(1).tolist()
            # Masked positions first.
            self.at = known[1].byte().argsort(dim=1, stable=True)[:, : max(to_fill)]
        # With known tokens the schedule shrinks in proportion.
        keep = [to_fill, *([fill * left // num_tokens for fill in to_fill] for left in shares)]
        draw, order = draw_noise(seeds, len(shares), num_tokens, codes, device)
        falling = torch.tensor(_temperatures(how, len(shares)), device=device)
        self.tensors = (draw, order * falling[:, None, None], torch.tensor(keep, device=device))
        self.uniform = known is None
        self.steps = [Step(0, max(before)) for before in keep[:-1]]

    def decide(
        self, step: int, logits: Tensor, tokens: Tensor, at: Tensor, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        draw, order, keep = tensors
        log_probs, now = logits.log_softmax(-1), self.steps[step].count
        left = torch.arange(tokens.shape[1], device=tokens.device)
        # Gumbel-max: an exact draw from the categorical distribution.
        drawn = (log_probs + take(draw[step], at)).argmax(-1)
        confidence = log_probs.gather(-1, drawn[..., None])[..., 0] + order[step].gather(1, at)
        if not self.uniform:  # a clip with fewer masked tokens than another gets settled ones as well, behind its own
            is_open = left[:now] < keep[step, :, None]
            drawn = torch.where(is_open, drawn, tokens.gather(1, at))
            confidence = confidence.masked_fill(~is_open, math.inf)
        # The least confident are masked again.
        least = confidence.argsort(dim=1, stable=True)
        at, drawn = at.gather(1, least), drawn.gather(1, least)
        count = self.steps[step + 1].count if step + 1 < len(self.steps) else 0
        if self.uniform:
            return tokens.scatter(1, at[:, count:], drawn[:, count:]), at[:, :count].sort(dim=1).values
        stays, num_tokens = left[:now] < keep[step + 1, :, None], tokens.shape[1]
        tokens = tokens.scatter(1, at, torch.where(stays, self._codes, drawn))
        return tokens, torch.where(stays, at, at + num_tokens)[:, :count].sort(dim=1).values % num_tokens
