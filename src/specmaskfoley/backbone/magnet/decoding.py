"""How MAGNeT decides tokens: codebook by codebook, in spans of columns (Ziv et al. 2024, sections 3.2 and 3.3).

At the first step of a level all its unknown tokens are masked. Every step draws them all, and masks those spans again
of which it is least certain, ever fewer; what is not masked again stays.

Shape letters: B clips, F codebooks, T columns, N = F * T tokens of a clip, K codes, S steps of all levels, n spans, m
columns that a step computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from specmaskfoley.backbone.role import FastDecoding, PlainDecoding, Step
from specmaskfoley.settings import Decoding, Magnet, TokenGrid

_COLDEST = 0.01
_SETTLED = -1e4
"""Score of a token that is not masked, among overlapping spans."""


class Spans(Protocol):
    """What is masked together; a unit is what the schedule counts."""

    def units(self, unknown: Tensor) -> Tensor:
        """How many may be masked: (..., T) -> (...)."""

    def columns(self, units: int) -> int:
        """How many columns such a number of masked units has at most."""

    def read(self, masked: Tensor) -> Tensor:
        """The columns whose probabilities `least_certain` needs where these are masked: (B, T) -> (B, T)."""

    def least_certain(self, probability: Tensor, masked: Tensor, count: Tensor) -> Tensor:
        """The columns to mask again.

        Args:
            probability: (B, T) of the drawn tokens; masked: (B, T), among which to choose.
            count: (B,) units, at least one where any column is masked.

        Returns:
            (B, T) bool; any where none is masked.
        """


class DisjointSpans:
    """Spans side by side, units themselves; one is as certain as its likeliest token (known ones are drawn as well).

    Where the columns are no multiple of a span, the last one is shorter; upstream leaves it away.
    """

    def __init__(self, span: int, num_columns: int) -> None:
        self.span, self.num_columns = span, num_columns

    def _by_span(self, x: Tensor) -> Tensor:
        """(..., T) -> (..., n, span), behind the end zeros."""
        padded = F.pad(x, (0, -self.num_columns % self.span))
        return padded.view(*x.shape[:-1], -1, self.span)

    def _by_column(self, x: Tensor) -> Tensor:
        """(..., n) -> (..., T)"""
        return x[..., None].expand(*x.shape, self.span).flatten(-2)[..., : self.num_columns]

    def units(self, unknown: Tensor) -> Tensor:
        return self._by_span(unknown).any(-1).sum(-1)

    def columns(self, units: int) -> int:
        return min(units * self.span, self.num_columns)

    def read(self, masked: Tensor) -> Tensor:
        return self._by_column(self._by_span(masked).any(-1))

    def least_certain(self, probability: Tensor, masked: Tensor, count: Tensor) -> Tensor:
        certainty = self._by_span(probability).amax(-1)
        certainty = certainty.masked_fill(~self._by_span(masked).any(-1), math.inf)
        rank = certainty.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        return self._by_column(rank < count[:, None])


class OverlappingSpans:
    """Spans from every column on, with columns as units: those whose tokens are least likely together."""

    def __init__(self, span: int, num_columns: int) -> None:
        self.span, self.num_columns = span, num_columns

    def units(self, unknown: Tensor) -> Tensor:
        return unknown.sum(-1)

    def columns(self, units: int) -> int:
        return min(max(units, self.span) + self.span, self.num_columns) if units else 0

    def read(self, masked: Tensor) -> Tensor:
        return masked

    def least_certain(self, probability: Tensor, masked: Tensor, count: Tensor) -> Tensor:
        """A search by halves for so many spans that their union has about `count` columns, as upstream: the last union
        that it made, which may have up to a span more."""
        score = torch.where(masked, -probability.log(), _SETTLED).unfold(1, self.span, 1).sum(-1)
        rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
        wanted = count.clamp(min=self.span)
        low, high = wanted // self.span, wanted - (self.span - 1)
        spans = ((low + high) / 2).round().long()
        union = self._union(rank < spans[:, None])
        for _ in range(self.num_columns.bit_length()):
            going = (low < spans) & (spans < high)
            union = torch.where(going[:, None], self._union(rank < spans[:, None]), union)
            over = union.sum(1) > wanted
            low, high = torch.where(going & ~over, spans, low), torch.where(going & over, spans, high)
            spans = torch.where(going, ((low + high) / 2).round().long(), spans)
        return union

    def _union(self, chosen: Tensor) -> Tensor:
        """Columns of spans: (B, T - span + 1) -> (B, T)."""
        around = F.pad(chosen, (self.span - 1, self.span - 1))
        return around.unfold(1, self.span, 1).any(-1)


_SPANS: dict[str, type[DisjointSpans] | type[OverlappingSpans]] = {
    "nonoverlap": DisjointSpans,
    "stride1": OverlappingSpans,
}


class Plan:
    """What is known before the first step, of both decodings.

    Attributes:
        steps: `count` being the columns of masked spans, known ones in them as well.
        fresh: nothing is known.
        counts: (S, B), how many units are masked before each step.
        temperatures: (S,); top_p: ().
        draws: (S, B, T) random numbers in 0..1. Each clip has a stream of its own from its seed, so that its tokens do
            not depend on the batch and order in which it is sampled.
        tokens: (B, F, T), K where masked; unknown: (B, F, T) bool.
    """

    def __init__(
        self,
        settings: Magnet,
        grid: TokenGrid,
        codes: int,
        how: Decoding,
        seeds: Sequence[int],
        known: tuple[Tensor, Tensor] | None,
        device: torch.device,
    ) -> None:
        if how.temperature is None or how.top_p is None:
            raise ValueError(
                f"backbone.kind={settings.kind} decides by sample.temperature and sample.top_p; found "
                f"{how.temperature} and {how.top_p}, set both"
            )
        self.spans: Spans = _SPANS[settings.arrangement](settings.span, grid.columns)
        self.codes, self.fresh = codes, known is None
        shape = (len(seeds), grid.rows, grid.columns)
        self.unknown = torch.ones(shape, dtype=torch.bool, device=device)
        self.tokens = torch.full(shape, codes, device=device)
        if known is not None:
            self.unknown = ~known[1].reshape(shape)
            self.tokens = known[0].reshape(shape).masked_fill(self.unknown, codes)
        units = self.spans.units(self.unknown).cpu()
        self.steps: list[Step] = []
        counts, temperatures = [], []
        for level, number in enumerate(how.steps_of(grid.rows)):
            # In float32, on the CPU: of ten steps the sixth share is just below one half there, as upstream.
            for index, share in enumerate(torch.cos(torch.linspace(0, 1, number) * (math.pi / 2))):
                counts.append((share * units[:, level]).long().clamp(min=1).minimum(units[:, level]))
                temperatures.append(max(how.temperature * (number - 1 - index) / number, _COLDEST))
                self.steps.append(Step(level, self.spans.columns(int(counts[-1].max()))))
        self.counts = torch.stack(counts).to(device)
        self.temperatures = torch.tensor(temperatures, device=device)
        self.top_p = torch.tensor(how.top_p, device=device)
        self.draws = torch.empty(len(counts), len(seeds), grid.columns, device=device)
        for clip, seed in enumerate(seeds):
            generator = torch.Generator(device).manual_seed(seed)
            self.draws[:, clip] = torch.rand(len(counts), grid.columns, generator=generator, device=device)

    def is_last(self, step: int) -> bool:
        """Of its level."""
        return step + 1 == len(self.steps) or self.steps[step + 1].level > self.steps[step].level


def draw(logits: Tensor, draws: Tensor, temperature: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens by inverse cumulative probability, of the fewest likely ones that hold more than top_p (at least one).

    Args:
        logits: (B, m, K); draws: (B, m) numbers from 0 to below 1.

    Returns:
        Tokens (B, m), and how likely they were among all, (B, m).
    """
    ranked, codes = (logits / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = ranked.cumsum(-1) - ranked
    reached = torch.where(before <= top_p, ranked, 0.0).cumsum(-1)
    place = (reached <= draws[..., None] * reached[..., -1:]).sum(-1, keepdim=True)
    return codes.gather(-1, place)[..., 0], ranked.gather(-1, place)[..., 0]


class MagnetPlainDecoding(PlainDecoding):
    def __init__(self, plan: Plan) -> None:
        self.plan, self.steps = plan, plan.steps
        self.tokens, self.masked = plan.tokens.flatten(1), plan.unknown.flatten(1)

    def decide(self, step: int, logits: Tensor) -> None:
        plan, level = self.plan, self.steps[step].level
        drawn, probability = draw(logits, plan.draws[step], plan.temperatures[step], plan.top_p)
        masked, unknown = self.masked.view_as(plan.unknown).clone(), plan.unknown[:, level]
        tokens = self.tokens.view_as(plan.tokens).clone()
        tokens[:, level] = torch.where(masked[:, level], drawn, tokens[:, level])
        if plan.is_last(step):
            masked[:, level] = False
        else:
            again = plan.spans.least_certain(probability, masked[:, level], plan.counts[step + 1])
            masked[:, level] = again & unknown
        self.tokens, self.masked = tokens.flatten(1), masked.flatten(1)


class MagnetFastDecoding(FastDecoding):
    """The same on the columns alone that have something to decide."""

    def __init__(self, plan: Plan) -> None:
        self.codes, self.spans, self.is_last = plan.codes, plan.spans, plan.is_last
        self.steps, self.uniform = plan.steps, plan.fresh
        self.tensors = (plan.counts, plan.temperatures, plan.top_p, plan.draws, plan.unknown)
        self.tokens = plan.tokens.flatten(1)
        self.at = self._columns(-1, plan.tokens)

    def decide(
        self, step: int, logits: Tensor, tokens: Tensor, at: Tensor, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        counts, temperatures, top_p, draws, unknown = tensors
        level = self.steps[step].level
        drawn, likely = draw(logits, draws[step].gather(1, at), temperatures[step], top_p)
        tokens = tokens.view_as(unknown).clone()
        before = tokens[:, level]
        masked = before == self.codes
        # A clip with fewer masked columns than another computes settled ones as well, for nothing.
        after = torch.where(masked, before.scatter(1, at, drawn), before)
        if not self.is_last(step):
            probability = torch.zeros_like(draws[step]).scatter(1, at, likely)
            again = self.spans.least_certain(probability, masked, counts[step + 1])
            after = after.masked_fill(again & unknown[:, level], self.codes)
        tokens[:, level] = after
        return tokens.flatten(1), self._columns(step, tokens)

    def _columns(self, step: int, tokens: Tensor) -> Tensor:
        """What the next step that is not skipped computes, from (B, F, T): (B, m)."""
        for following in self.steps[step + 1 :]:
            if following.count:
                read = self.spans.read(tokens[:, following.level] == self.codes)
                return read.byte().argsort(dim=1, descending=True, stable=True)[:, : following.count]
        return tokens[:, 0, :0]
