"""The sampler of the product (section 3.3, eq. 1): what does not change is computed once, no step waits for the device.

All lengths are known before the first step, so that a GPU can run the whole loop as one CUDA graph.

Shape letters: B clips, N tokens a clip, K codes, P prompt width, D backbone width, S steps,
m positions that a step computes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from specmaskfoley.backbone.layers import take
from specmaskfoley.backbone.network import Backbone
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.device import fast_bfloat16, half_dtype
from specmaskfoley.sampling.guidance import UNCONDITIONAL, Condition, Pass, aligned_features
from specmaskfoley.sampling.int8 import quantise, supports_int8
from specmaskfoley.sampling.noise import draw_noise
from specmaskfoley.sampling.schedule import mask_counts
from specmaskfoley.settings import Sample, Sampling

_WIDE = 512
"""Width from which bfloat16 pays on a CPU: the mini networks take longer in it, the paper's half as long (measured)."""

_MAX_GRAPHS = 4


@dataclass(frozen=True)
class _Step:
    """passes: with their weights, those without video first; count: m; temperature: of the confidences' noise."""

    passes: tuple[tuple[Pass, float], ...]
    count: int
    temperature: float


class _Given(NamedTuple):
    """What a run of the loop reads; the same shapes for the same steps and number of clips.

    prompt: (B, D) projected; aligned: (B, N, D), empty without video; draw: (S, B, N, K) and order: (S, B, N) noise;
    tokens, masked: (B, N) at the start; keep: (S, B) how many tokens stay masked after each step.
    """

    prompt: Tensor
    aligned: Tensor
    draw: Tensor
    order: Tensor
    tokens: Tensor
    masked: Tensor
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
        wide = backbone.settings.width >= _WIDE
        half = half_dtype(precision, self.device) is not None
        half = half or (precision == "auto" and wide and fast_bfloat16(self.device))
        self.dtype = torch.bfloat16 if half else torch.float32
        if int8 and not supports_int8(self.device):
            raise ValueError(
                f"sample.int8=true needs a CPU with AVX512-VNNI, but {self.device} is used; set it to false"
            )
        for layers in [backbone.blocks] + ([control.blocks, control.zero_out] if control else []):
            layers.to(self.dtype)
            if int8:
                quantise(layers)
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
            ValueError: the plan has passes with video, and there is no control branch or no features.
        """
        with_video = any(one.video for weights in plan for one in weights)
        aligned = aligned_features(self.control, condition) if with_video else torch.empty(0, device=self.device)
        given, masked_before = self._prepare(condition.prompt, aligned, settings.schedule, len(plan), seeds, known)
        steps = tuple(
            _Step(
                passes=tuple(sorted(weights.items(), key=lambda item: (item[0].video, item[0].prompt))),
                count=count,
                temperature=settings.gumbel_temperature * (1.0 - (index + 1) / len(plan)),
            )
            for index, (weights, count) in enumerate(zip(plan, masked_before, strict=True))
        )
        fresh = known is None and steps[0].passes == ((UNCONDITIONAL, 1.0),)
        if fresh and self._first is None:
            self._first = self._first_logits()
        if self.device.type != "cuda" or known is not None:
            return self._decode(given, steps, fresh, before_step)
        return self._graph(given, steps, fresh)(given)

    def _prepare(
        self,
        prompt: Tensor,
        aligned: Tensor,
        schedule: str,
        steps: int,
        seeds: Sequence[int],
        known: tuple[Tensor, Tensor] | None,
    ) -> tuple[_Given, list[int]]:
        """What the loop reads, and how many tokens of a clip are masked at most before each step."""
        num_tokens, codes = self.backbone.positions.shape[0], self.backbone.tokens.num_embeddings
        if known is None:
            tokens = torch.zeros(len(seeds), num_tokens, dtype=torch.int64, device=self.device)
            masked, to_fill = torch.ones_like(tokens, dtype=torch.bool), [num_tokens] * len(seeds)
        else:
            tokens, masked = known[0], ~known[1]
            to_fill = masked.sum(1).tolist()
        # With known tokens the schedule shrinks in proportion.
        counts = mask_counts(num_tokens, steps, schedule)
        keep = [[fill * left // num_tokens for fill in to_fill] for left in counts]
        draw, order = draw_noise(seeds, steps, num_tokens, codes, self.device)
        kept = torch.tensor(keep, device=self.device)
        given = _Given(self.backbone.prompt(prompt), aligned, draw, order, tokens, masked, kept)
        return given, [max(before) for before in [to_fill, *keep[:-1]]]

    def _first_logits(self) -> Tensor:
        """Logits where nothing is known, prompted or seen, the same for all clips: (1, N, K)."""
        backbone = self.backbone
        num_tokens = backbone.positions.shape[0]
        masked = torch.ones(1, num_tokens, dtype=torch.bool, device=self.device)
        nothing = masked.long()
        given = _Given(backbone.unconditional_mask[None], nothing, nothing, nothing, nothing, masked, nothing)
        at = torch.arange(num_tokens, device=self.device)[None]
        return self._logits(given, nothing, masked, at, ((UNCONDITIONAL, 1.0),))

    def _graph(self, given: _Given, steps: tuple[_Step, ...], fresh: bool) -> _Graph:
        key = (given.tokens.shape[0], steps, fresh)
        if key not in self._graphs:
            if len(self._graphs) == _MAX_GRAPHS:
                self._graphs.popitem(last=False)
            self._graphs[key] = _Graph(self, given, steps, fresh)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _decode(
        self, given: _Given, steps: Sequence[_Step], fresh: bool, before_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """The loop. `fresh`: the first step's logits are the constant ones."""
        tokens, masked = given.tokens, given.masked
        for index, step in enumerate(steps):
            if step.count == 0:
                break
            if before_step is not None:
                before_step(index)
            # Masked positions first, in their order. A clip with fewer of them than another gets settled ones as well.
            at = (~masked).byte().argsort(dim=1, stable=True)[:, : step.count]
            open_, before = masked.gather(1, at), tokens.gather(1, at)
            if index == 0 and fresh and self._first is not None:
                logits = self._first.expand(at.shape[0], -1, -1)
            else:
                logits = self._logits(given, tokens, masked, at, step.passes)
            log_probs = logits.log_softmax(-1)
            # Gumbel-max: an exact draw from the categorical distribution.
            drawn = (log_probs + take(given.draw[index], at)).argmax(-1)
            tokens = tokens.scatter(1, at, torch.where(open_, drawn, before))
            confidence = log_probs.gather(-1, drawn[..., None])[..., 0]
            confidence = confidence + step.temperature * given.order[index].gather(1, at)
            # The least confident are masked again.
            rank = confidence.masked_fill(~open_, math.inf).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
            masked = torch.zeros_like(masked).scatter(1, at, rank < given.keep[index, :, None])
        return tokens

    def _logits(
        self, given: _Given, tokens: Tensor, masked: Tensor, at: Tensor, passes: Sequence[tuple[Pass, float]]
    ) -> Tensor:
        """Guided logits at some positions: (B, m, K) float32."""
        backbone = self.backbone
        batch = tokens.shape[0]
        prompts = sorted({one.prompt for one, _ in passes})  # passes that differ only in the video share an input
        visible = backbone.tokens(torch.where(masked, 0, tokens))
        inputs = [
            torch.where(
                masked[..., None], (given.prompt if prompt else backbone.unconditional_mask)[..., None, :], visible
            )
            + backbone.positions
            for prompt in prompts
        ]
        seen = [inputs[prompts.index(one.prompt)] for one, _ in passes if one.video]
        steered = torch.cat([x + given.aligned for x in seen]).to(self.dtype) if seen else None
        x = torch.cat(inputs).to(self.dtype)
        last = len(backbone.blocks) - 1
        wanted = at.repeat(len(passes), 1)
        for index, block in enumerate(backbone.blocks):
            x = block(x, wanted if index == last and index > 0 else None)
            if index == 0:
                parts = dict(zip(prompts, x.tensor_split(len(prompts)), strict=True))
                x = torch.cat([parts[one.prompt] for one, _ in passes])
                x = take(x, wanted) if index == last else x
            if steered is not None and index < len(self._branch):
                control_block, zero_out = self._branch[index]
                steered = control_block(steered)
                residual = zero_out(steered)
                x[-residual.shape[0] :] += take(residual, wanted[-residual.shape[0] :]) if index == last else residual
        # The head is linear and the weights sum to one: it is applied once, to the weighted sum, in float32.
        normed = backbone.norm(x.float()).unflatten(0, (len(passes), batch))
        guided = sum(
            (weight * part for (_, weight), part in zip(passes, normed, strict=True)),
            start=torch.zeros((), device=self.device),
        )
        return backbone.head(guided)  # type: ignore[no-any-return]


class _Graph:
    """The loop for one number of clips and one plan as a CUDA graph."""

    def __init__(self, sampler: Sampler, given: _Given, steps: tuple[_Step, ...], fresh: bool) -> None:
        self.given = _Given(*(part.clone() for part in given))
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # libraries choose kernels and allocate work space outside the capture
                sampler._decode(self.given, steps, fresh)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.tokens = sampler._decode(self.given, steps, fresh)

    def __call__(self, given: _Given) -> Tensor:
        for mine, new in zip(self.given, given, strict=True):
            mine.copy_(new)
        self.graph.replay()
        return self.tokens.clone()
