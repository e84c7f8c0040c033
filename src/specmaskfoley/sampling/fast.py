"""The sampler of the product (section 3.3, eq. 1): what does not change is computed once, no step waits for the device.

All lengths are known before the first step, so that a GPU can run the whole loop as one CUDA graph.

Shape letters: B clips, N tokens a clip, K codes, P passes of a step, W kinds of words, M positions of the backbone's
sequence, D its width, S steps, m positions that a step computes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from specmaskfoley.backbone.layers import take
from specmaskfoley.backbone.role import Backbone, FastDecoding, Step
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.device import half_dtype, set_deterministic
from specmaskfoley.sampling.guidance import UNCONDITIONAL, Condition, Pass, Words, aligned_features
from specmaskfoley.sampling.int8 import quantise, supports_int8
from specmaskfoley.sampling.packed import pack, supports_packing
from specmaskfoley.settings import Decoding

_MAX_GRAPHS = 4

_FEW_ROWS = 2048
"""Rows of tokens up to which passes are grouped on a GPU; beyond, the passes that grouping adds would take longer than
starting more operations does (not measured)."""

_BACKBONE, _BRANCH = 0, 1


class _Given(NamedTuple):
    """What a run of the loop reads; the same shapes for the same steps and number of clips.

    heard: of the prompts, see `Backbone.hear`;
    offsets: (1 or 2, B, M, D) what is added to embeddings for the backbone and, with video, for the branch;
    weights: (S, P) of the passes; deciding: see `FastDecoding.tensors`;
    tokens: (B, N) at the start, K where masked; at: (B, m) positions that the first step computes.
    """

    heard: tuple[Tensor, ...]
    offsets: Tensor
    weights: Tensor
    deciding: tuple[Tensor, ...]
    tokens: Tensor
    at: Tensor

    def flat(self) -> list[Tensor]:
        """All tensors."""
        return [*self.heard, self.offsets, self.weights, *self.deciding, self.tokens, self.at]

    def clone(self) -> _Given:
        """A copy of all of them."""
        heard, deciding = (tuple(one.clone() for one in part) for part in (self.heard, self.deciding))
        return _Given(heard, self.offsets.clone(), self.weights.clone(), deciding, self.tokens.clone(), self.at.clone())


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
        self._grouped = backbone.grouped(control, self.dtype) if _groups(self.device) else None
        for layers in [backbone.blocks] + ([control.blocks, control.zero_out] if control else []):
            layers.to(self.dtype)
            if int8:
                quantise(layers)
            elif self._grouped is None and supports_packing(self.dtype, self.device):
                pack(layers)
        self._branch = list(zip(control.blocks, control.zero_out, strict=True)) if control else []
        self._networks = [backbone.blocks, *([control.blocks] if control else [])]
        self._first: Tensor | None = None
        self._graphs: OrderedDict[object, _Graph] = OrderedDict()

    @torch.inference_mode()
    def sample(
        self,
        condition: Condition,
        *,
        plan: Sequence[Mapping[Pass, float]],
        settings: Decoding,
        seeds: Sequence[int],
        known: tuple[Tensor, Tensor] | None = None,
        before_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Decode all masked tokens.

        Args:
            plan: weights of the passes of every step, see `guidance_plan`.
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
        passes = tuple(tuple(sorted(weights, key=lambda one: (one.video, one.prompt))) for weights in plan)
        decoding = self.backbone.fast_decoding(settings, seeds, known)
        given = self._given(condition, aligned, decoding, plan, passes)
        fresh = known is None and plan[0] == {UNCONDITIONAL: 1.0}
        with not_deterministic():
            if fresh and self._first is None:
                self._first = self._first_logits(condition, settings)
            if self.device.type != "cuda" or not decoding.uniform:
                return self._decode(given, decoding, passes, fresh, before_step)
            return self._graph(given, decoding, passes, fresh)(given)

    def _given(
        self,
        condition: Condition,
        aligned: Tensor | None,
        decoding: FastDecoding,
        plan: Sequence[Mapping[Pass, float]],
        passes: Sequence[Sequence[Pass]],
    ) -> _Given:
        batch = len(decoding.tokens)
        weights = [[step[one] for one in taken] for step, taken in zip(plan, passes, strict=True)]
        most = max(map(len, weights))
        positions = self.backbone.positions.expand(batch, -1, -1)
        return _Given(
            heard=self.backbone.hear(condition.prompt, condition.at, condition.negative, self._networks),
            offsets=torch.stack([positions] if aligned is None else [positions, positions + aligned]),
            weights=torch.tensor([row + [0.0] * (most - len(row)) for row in weights], device=self.device),
            deciding=decoding.tensors,
            tokens=decoding.tokens,
            at=decoding.at,
        )

    def _first_logits(self, condition: Condition, settings: Decoding) -> Tensor:
        """Logits where nothing is known, prompted or seen, the same for all clips: (1, m, K)."""
        alone = Condition(condition.prompt[:1] if condition.at is None else condition.prompt[:1, 0])
        decoding = self.backbone.fast_decoding(settings, [0], None)
        plan = [{UNCONDITIONAL: 1.0}] * len(decoding.steps)
        given = self._given(alone, None, decoding, plan, [[UNCONDITIONAL]] * len(plan))
        return self._logits(given, given.tokens, given.at, decoding.steps[0], [UNCONDITIONAL], given.weights[0])

    def _graph(
        self, given: _Given, decoding: FastDecoding, passes: tuple[tuple[Pass, ...], ...], fresh: bool
    ) -> _Graph:
        key = (*(part.shape for part in given.flat()), tuple(decoding.steps), passes, fresh)
        if key not in self._graphs:
            if len(self._graphs) == _MAX_GRAPHS:
                self._graphs.popitem(last=False)
            self._graphs[key] = _Graph(self, given, decoding, passes, fresh)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _decode(
        self,
        given: _Given,
        decoding: FastDecoding,
        passes: Sequence[Sequence[Pass]],
        fresh: bool,
        before_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """The loop.

        Args:
            fresh: the first step's logits are the constant ones.
        """
        tokens, at = given.tokens, given.at
        for number, step in enumerate(decoding.steps):
            if step.count == 0:
                continue
            if before_step is not None:
                before_step(number)
            if number == 0 and fresh and self._first is not None:
                logits = self._first.expand(at.shape[0], -1, -1)
            else:
                logits = self._logits(given, tokens, at, step, passes[number], given.weights[number])
            tokens, at = decoding.decide(number, logits, tokens, at, given.deciding)
        return tokens

    def _logits(
        self, given: _Given, tokens: Tensor, at: Tensor, step: Step, passes: Sequence[Pass], weights: Tensor
    ) -> Tensor:
        """Guided logits at some positions: (B, m, K) float32."""
        backbone = self.backbone
        with_video = sum(one.video for one in passes)
        if self._grouped is not None and len(passes) * tokens.numel() <= _FEW_ROWS:
            embedded = backbone.embed_heard(given.heard, tokens, [one.prompt for one in passes])
            x = self._grouped(embedded, given.offsets, with_video)
            x = x.gather(2, at[:, :, None].expand(*x.shape[:2], -1, x.shape[-1]))
        else:
            x = self._through_blocks(given, tokens, at, step.level, passes)
        # The head is linear and the weights sum to one: it is applied once, to the weighted sum, in float32.
        normed = backbone.norm(x.float())
        guided = weights[: len(passes)] @ normed.flatten(1)
        return backbone.head(step.level)(guided.view(normed.shape[1:]))  # type: ignore[no-any-return]

    def _through_blocks(self, given: _Given, tokens: Tensor, at: Tensor, level: int, passes: Sequence[Pass]) -> Tensor:
        """What the last block makes of some positions: (P, B, m, D)."""
        backbone, blocks = self.backbone, self.backbone.blocks
        words = sorted({one.prompt for one in passes})  # passes that differ only in the video share an input
        embedded = backbone.embed_heard(given.heard, tokens, words)
        x = (embedded + given.offsets[0]).to(self.dtype).flatten(0, 1)
        seen = [one.prompt for one in passes if one.video]
        steered: Tensor | None = None
        if seen:
            steered = torch.cat([embedded[words.index(one)] + given.offsets[1] for one in seen]).to(self.dtype)
            of_branch = backbone.contexts(given.heard, seen, level, _BRANCH, self.dtype)
        last = len(blocks) - 1
        wanted = at.repeat(len(passes), 1)
        first = backbone.contexts(given.heard, words, level, _BACKBONE, self.dtype)
        contexts = backbone.contexts(given.heard, [one.prompt for one in passes], level, _BACKBONE, self.dtype)
        for index, block in enumerate(blocks):
            x = block(x, (contexts if index else first)[index], wanted if index == last and index > 0 else None)
            if index == 0:
                parts = dict(zip(words, x.tensor_split(len(words)), strict=True))
                x = torch.cat([parts[one.prompt] for one in passes])
                x = take(x, wanted) if index == last else x
            if steered is not None and index < len(self._branch):
                control_block, zero_out = self._branch[index]
                steered = control_block(steered, of_branch[index])
                residual = zero_out(steered)
                x[-residual.shape[0] :].add_(
                    take(residual, wanted[-residual.shape[0] :]) if index == last else residual
                )
        return x.view(len(passes), -1, *x.shape[1:])


class _Graph:
    """The loop for one number of clips and one plan as a CUDA graph."""

    def __init__(
        self,
        sampler: Sampler,
        given: _Given,
        decoding: FastDecoding,
        passes: Sequence[Sequence[Pass]],
        fresh: bool,
    ) -> None:
        self.given = given.clone()
        self.device = sampler.device
        with torch.cuda.device(self.device):  # else streams and graph are of cuda:0, whatever the networks lie on
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):  # libraries choose kernels and allocate work space outside the capture
                    sampler._decode(self.given, decoding, passes, fresh)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.tokens = sampler._decode(self.given, decoding, passes, fresh)

    def __call__(self, given: _Given) -> Tensor:
        with torch.cuda.device(self.device):
            for mine, new in zip(self.given.flat(), given.flat(), strict=True):
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
