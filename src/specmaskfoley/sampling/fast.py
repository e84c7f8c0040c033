"""The sampler of the product (section 3.3, eq. 1): what does not change is computed once, no step waits for the device.

All lengths are known before the first step, so that a GPU can run the whole loop as one CUDA graph.

Shape letters: B clips, N tokens a clip, K codes, P passes of a step, Q prompts of a clip, D backbone width, S steps,
m positions that a step computes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from specmaskfoley.backbone.layers import take
from specmaskfoley.backbone.network import Backbone
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.device import half_dtype, set_deterministic
from specmaskfoley.sampling.grouped import GroupedPasses
from specmaskfoley.sampling.guidance import UNCONDITIONAL, Condition, Pass, Words, aligned_features
from specmaskfoley.sampling.int8 import quantise, supports_int8
from specmaskfoley.sampling.noise import draw_noise
from specmaskfoley.sampling.packed import pack, supports_packing
from specmaskfoley.sampling.schedule import mask_counts
from specmaskfoley.settings import Sample, Sampling

_MAX_GRAPHS = 4

_FEW_ROWS = 2048
"""Rows of tokens up to which passes are grouped on a GPU; beyond, the passes that grouping adds would take longer than
starting more operations does (not measured)."""


@dataclass(frozen=True)
class _Step:
    """passes: those without video first; count: m."""

    passes: tuple[Pass, ...]
    count: int


class _Given(NamedTuple):
    """What a run of the loop reads; the same shapes for the same steps and number of clips.

    table: (K + 1 + B * Q, D) embeddings of the codes, of the unconditional mask and of the clips' prompts; B more of
        what is not to be heard;
    masks: (3, B, 1 or N) rows of it that masked tokens take in passes with each kind of words;
    offsets: (1 or 2, B, N, D) what is added to embeddings for the backbone and, with video, for the branch;
    weights: (S, P) of the passes; draw: (S, B, N, K) and order: (S, B, N) noise;
    tokens: (B, N) at the start, K where masked; at: (B, m) positions that the first step computes;
    keep: (S + 1, B) how many tokens are masked before each step and after the last.
    """

    table: Tensor
    masks: Tensor
    offsets: Tensor
    weights: Tensor
    draw: Tensor
    order: Tensor
    tokens: Tensor
    at: Tensor
    keep: Tensor


class Sampler:
    """Decodes masked tokens with a trained backbone and control branch, which it may convert.

    In float32 it gives the tokens of `reference.sample_tokens`; for other precisions it converts the blocks of the
    networks in place, so that memory holds their weights once.

    Raises:
        ValueError: int8 on a device that gains nothing from it.
    """

    def __init__(
        self, backbone: Backbone, control: ControlBranch | None, *, precision: str = "auto", int8: bool = False
    ) -> None:
        self.backbone, self.control = backbone, control
        self.device = backbone.positions.device
        self.dtype = torch.bfloat16 if half_dtype(precision, self.device) else torch.float32
        if int8 and not supports_int8(self.device):
            raise ValueError(
                f"sample.int8=true needs a CPU with AVX512-VNNI, but {self.device} is used; set it to false"
            )
        # First, since it folds the norms' weights into others before they are rounded.
        self._grouped = GroupedPasses(backbone, control, self.dtype) if _groups(self.device) else None
        for layers in [backbone.blocks] + ([control.blocks, control.zero_out] if control else []):
            layers.to(self.dtype)
            if int8:
                quantise(layers)
            elif self._grouped is None and supports_packing(self.dtype, self.device):
                pack(layers)
        self._branch = list(zip(control.blocks, control.zero_out, strict=True)) if control else []
        self._first: Tensor | None = None
        self._graphs: OrderedDict[object, _Graph] = OrderedDict()

    @torch.inference_mode()
    def sample(
        self,
        condition: Condition,
        *,
        plan: Sequence[Mapping[Pass, float]],
        settings: Sample | Sampling,
        seeds: Sequence[int],
        known: tuple[Tensor, Tensor] | None = None,
        before_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Decode all masked tokens.

        Args:
            plan: weights of the passes of every step, see `guidance_plan`.
            settings: schedule and temperature; the number of steps is the plan's.
            seeds: one a clip.
            known: tokens (B, N) and a bool mask (B, N) of those to keep as they are.
            before_step: called with the number of every step; what it raises ends the sampling. A CUDA graph, which
                runs all steps as one (without `known`), does not call it.

        Returns:
            (B, N) int64.

        Raises:
            ValueError: the plan has passes with video, and there is no control branch or no features; or passes with
                what is not to be heard, and there is none.
        """
        if condition.negative is None and any(one.prompt == Words.NEGATIVE for weights in plan for one in weights):
            raise ValueError("this guidance needs the embedding of what is not to be heard")
        with_video = any(one.video for weights in plan for one in weights)
        aligned = aligned_features(self.control, condition) if with_video else None
        passes = [tuple(sorted(weights, key=lambda one: (one.video, one.prompt))) for weights in plan]
        given, masked_before = self._prepare(condition, aligned, settings, plan, passes, seeds, known)
        steps = tuple(_Step(*step) for step in zip(passes, masked_before, strict=True))
        fresh = known is None and plan[0] == {UNCONDITIONAL: 1.0}
        with not_deterministic():
            if fresh and self._first is None:
                self._first = self._first_logits()
            if self.device.type != "cuda" or known is not None:
                return self._decode(given, steps, fresh, known is None, before_step)
            return self._graph(given, steps, fresh)(given)

    def _prepare(
        self,
        condition: Condition,
        aligned: Tensor | None,
        settings: Sample | Sampling,
        plan: Sequence[Mapping[Pass, float]],
        passes: Sequence[Sequence[Pass]],
        seeds: Sequence[int],
        known: tuple[Tensor, Tensor] | None,
    ) -> tuple[_Given, list[int]]:
        """What the loop reads, and how many tokens of a clip are masked at most before each step."""
        backbone, batch, count, device = self.backbone, len(seeds), len(plan), self.device
        num_tokens, codes = backbone.positions.shape[0], backbone.tokens.num_embeddings
        at = torch.arange(num_tokens, device=device).expand(batch, -1)
        if known is None:
            tokens, to_fill = torch.full((batch, num_tokens), codes, device=device), [num_tokens] * batch
        else:
            tokens, to_fill = known[0].masked_fill(~known[1], codes), (~known[1]).sum(1).tolist()
            at = known[1].byte().argsort(dim=1, stable=True)[:, : max(to_fill)]  # masked positions first
        # With known tokens the schedule shrinks in proportion.
        shares = mask_counts(num_tokens, count, settings.schedule)
        keep = [to_fill, *([fill * left // num_tokens for fill in to_fill] for left in shares)]
        weights = [[plan[step][one] for one in passes[step]] for step in range(count)]
        most = max(map(len, weights))
        draw, order = draw_noise(seeds, count, num_tokens, codes, device)
        falling = [settings.gumbel_temperature * (1.0 - (step + 1) / count) for step in range(count)]
        positions = backbone.positions.expand(batch, -1, -1)
        table, masks = self._words(condition, batch)
        given = _Given(
            table=table,
            masks=masks,
            offsets=torch.stack([positions] if aligned is None else [positions, positions + aligned]),
            weights=torch.tensor([row + [0.0] * (most - len(row)) for row in weights], device=device),
            draw=draw,
            order=order * torch.tensor(falling, device=device)[:, None, None],
            tokens=tokens,
            at=at,
            keep=torch.tensor(keep, device=device),
        )
        return given, [max(before) for before in keep[:-1]]

    def _words(self, condition: Condition, batch: int) -> tuple[Tensor, Tensor]:
        """`_Given.table` and `_Given.masks`."""
        backbone, device = self.backbone, self.device
        none = backbone.tokens.num_embeddings
        prompts = condition.prompt.view(batch, -1, condition.prompt.shape[-1])
        rows = none + 1 + torch.arange(batch * prompts.shape[1], device=device).view(batch, -1)
        table = [backbone.tokens.weight, backbone.unconditional_mask[None], backbone.prompt(prompts.flatten(0, 1))]
        prompted = rows
        if condition.at is not None:
            prompted = rows.gather(1, condition.at.clamp(min=0)).masked_fill(condition.at < 0, none)
        negative = torch.full_like(prompted, none)
        if condition.negative is not None:
            table.append(backbone.prompt(condition.negative))
            negative = (none + 1 + rows.numel() + torch.arange(batch, device=device))[:, None].expand_as(prompted)
        return torch.cat(table), torch.stack([torch.full_like(prompted, none), prompted, negative])

    def _first_logits(self) -> Tensor:
        """Logits where nothing is known, prompted or seen, the same for all clips: (1, N, K)."""
        backbone, step = self.backbone, [{UNCONDITIONAL: 1.0}]
        nothing = torch.zeros(1, backbone.prompt.in_features, device=self.device)
        settings = Sample(steps=1, gumbel_temperature=0.0, batch_size=1, videos=0)
        given, _ = self._prepare(Condition(nothing), None, settings, step, [[UNCONDITIONAL]], [0], None)
        return self._logits(given, given.tokens, given.at, [UNCONDITIONAL], given.weights[0])

    def _graph(self, given: _Given, steps: tuple[_Step, ...], fresh: bool) -> _Graph:
        key = (*(part.shape for part in given), steps, fresh)
        if key not in self._graphs:
            if len(self._graphs) == _MAX_GRAPHS:
                self._graphs.popitem(last=False)
            self._graphs[key] = _Graph(self, given, steps, fresh)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _decode(
        self,
        given: _Given,
        steps: Sequence[_Step],
        fresh: bool,
        uniform: bool,
        before_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """The loop.

        Args:
            fresh: the first step's logits are the constant ones.
            uniform: all clips have as many masked tokens.
        """
        tokens, at = given.tokens, given.at
        codes, num_tokens = self.backbone.tokens.num_embeddings, tokens.shape[1]
        left = torch.arange(num_tokens, device=self.device)
        for index, step in enumerate(steps):
            if step.count == 0:
                break
            if before_step is not None:
                before_step(index)
            if index == 0 and fresh and self._first is not None:
                logits = self._first.expand(at.shape[0], -1, -1)
            else:
                logits = self._logits(given, tokens, at, step.passes, given.weights[index])
            log_probs = logits.log_softmax(-1)
            # Gumbel-max: an exact draw from the categorical distribution.
            drawn = (log_probs + take(given.draw[index], at)).argmax(-1)
            confidence = log_probs.gather(-1, drawn[..., None])[..., 0] + given.order[index].gather(1, at)
            if not uniform:  # a clip with fewer masked tokens than another gets settled ones as well, behind its own
                is_open = left[: step.count] < given.keep[index, :, None]
                drawn = torch.where(is_open, drawn, tokens.gather(1, at))
                confidence = confidence.masked_fill(~is_open, math.inf)
            # The least confident are masked again.
            least = confidence.argsort(dim=1, stable=True)
            at, drawn = at.gather(1, least), drawn.gather(1, least)
            count = steps[index + 1].count if index + 1 < len(steps) else 0
            if uniform:
                tokens = tokens.scatter(1, at[:, count:], drawn[:, count:])
                at = at[:, :count].sort(dim=1).values
            else:
                stays = left[: step.count] < given.keep[index + 1, :, None]
                tokens = tokens.scatter(1, at, torch.where(stays, codes, drawn))
                at = torch.where(stays, at, at + num_tokens)[:, :count].sort(dim=1).values % num_tokens
        return tokens

    def _logits(self, given: _Given, tokens: Tensor, at: Tensor, passes: Sequence[Pass], weights: Tensor) -> Tensor:
        """Guided logits at some positions: (B, m, K) float32."""
        backbone = self.backbone
        with_video = sum(one.video for one in passes)
        if self._grouped is not None and len(passes) * tokens.numel() <= _FEW_ROWS:
            embedded = self._embed(given, tokens, [one.prompt for one in passes])
            x = self._grouped(embedded, given.offsets, with_video)
            x = x.gather(2, at[:, :, None].expand(*x.shape[:2], -1, x.shape[-1]))
        else:
            x = self._through_blocks(given, tokens, at, passes, with_video)
        # The head is linear and the weights sum to one: it is applied once, to the weighted sum, in float32.
        normed = backbone.norm(x.float())
        guided = weights[: len(passes)] @ normed.flatten(1)
        return backbone.head(guided.view(normed.shape[1:]))  # type: ignore[no-any-return]

    def _embed(self, given: _Given, tokens: Tensor, prompts: Sequence[Words]) -> Tensor:
        """Embeddings of passes with these words, without positions: (P, B, N, D)."""
        masks = torch.cat([given.masks[prompt, None] for prompt in prompts])
        rows = torch.where(tokens == self.backbone.tokens.num_embeddings, masks, tokens)
        return F.embedding(rows, given.table)

    def _through_blocks(
        self, given: _Given, tokens: Tensor, at: Tensor, passes: Sequence[Pass], with_video: int
    ) -> Tensor:
        """What the last block makes of some positions: (P, B, m, D)."""
        blocks = self.backbone.blocks
        prompts = sorted({one.prompt for one in passes})  # passes that differ only in the video share an input
        embedded = self._embed(given, tokens, prompts)
        x = (embedded + given.offsets[0]).to(self.dtype).flatten(0, 1)
        seen = [embedded[prompts.index(one.prompt)] + given.offsets[1] for one in passes if one.video]
        steered = torch.cat(seen).to(self.dtype) if seen else None
        last = len(blocks) - 1
        wanted = at.repeat(len(passes), 1)
        for index, block in enumerate(blocks):
            x = block(x, wanted if index == last and index > 0 else None)
            if index == 0:
                parts = dict(zip(prompts, x.tensor_split(len(prompts)), strict=True))
                x = torch.cat([parts[one.prompt] for one in passes])
                x = take(x, wanted) if index == last else x
            if steered is not None and index < len(self._branch):
                control_block, zero_out = self._branch[index]
                steered = control_block(steered)
                residual = zero_out(steered)
                x[-residual.shape[0] :].add_(
                    take(residual, wanted[-residual.shape[0] :]) if index == last else residual
                )
        return x.view(len(passes), -1, *x.shape[1:])


class _Graph:
    """The loop for one number of clips and one plan as a CUDA graph."""

    def __init__(self, sampler: Sampler, given: _Given, steps: tuple[_Step, ...], fresh: bool) -> None:
        self.given = _Given(*(part.clone() for part in given))
        self.device = sampler.device
        with torch.cuda.device(self.device):  # else streams and graph are of cuda:0, whatever the networks lie on
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):  # libraries choose kernels and allocate work space outside the capture
                    sampler._decode(self.given, steps, fresh, uniform=True)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.tokens = sampler._decode(self.given, steps, fresh, uniform=True)

    def __call__(self, given: _Given) -> Tensor:
        with torch.cuda.device(self.device):
            for mine, new in zip(self.given, given, strict=True):
                mine.copy_(new)
            self.graph.replay()
            return self.tokens.clone()


def _groups(device: torch.device) -> bool:
    """Whether starting operations takes a good part of the time."""
    return device.type == "cuda"


@contextmanager
def not_deterministic() -> Iterator[None]:
    """Without torch's deterministic algorithms, which cost many small operations and change nothing here.

    All positions that are scattered to or gathered from are unique.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    set_deterministic(False, warn_only=False)
    try:
        yield
    finally:
        set_deterministic(before, warn_only=warn_only)
