"""What the rest of the project needs of a backbone: a masked generative Transformer over a grid of tokens.

A kind of backbone is a folder here and a line in `trained.KINDS`. Its network subclasses `Backbone`; how it decides
tokens while sampling is a `PlainDecoding`, written to be read, and a `FastDecoding`, which is what runs.

A backbone decides its tokens in levels: SpecMaskGIT all in one, MAGNeT codebook by codebook. Shape letters: B clips,
F token rows, T token columns, N = F * T tokens of a clip, M positions of the Transformer's sequence (a multiple of T),
n tokens that a level decides (one for each position: n = M), K codes, D width, Q prompts of a clip, *P shape of a
prompt, W kinds of words, S steps, m positions that a step computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from specmaskfoley.settings import Decoding, TokenGrid
from specmaskfoley.weights.official import OfficialNetwork


class Inputs(NamedTuple):
    """What enters the blocks.

    x: (B, M, D) embeddings of the tokens, with positions.
    contexts: what each block reads besides it, one a block.
    level: which tokens are predicted.
    """

    x: Tensor
    contexts: Sequence[Any]
    level: int


@dataclass(frozen=True)
class Step:
    """A step of the decoding.

    level: which tokens it decides.
    count: how many of its level's tokens are masked before it, at most over the clips.
    """

    level: int
    count: int


class PlainDecoding(ABC):
    """Decides the tokens of B clips, a step at a time.

    Attributes:
        steps: of which those with a count of 0 are skipped.
        tokens: (B, N) int64, any value where masked; masked: (B, N) bool. What the network sees of the next step.
    """

    steps: Sequence[Step]
    tokens: Tensor
    masked: Tensor

    @abstractmethod
    def decide(self, step: int, logits: Tensor) -> None:
        """Draw tokens of the step's level from (B, n, K) float32, and mask the least certain again."""


class FastDecoding(ABC):
    """The same for the fast sampler: no step waits for the device, and only masked positions are computed.

    Attributes:
        steps: as of PlainDecoding.
        tensors: whatever `decide` reads, so that a CUDA graph can be run again with others; shapes depend on B and
            `steps` alone.
        uniform: all clips have as many masked tokens.
        tokens: (B, N) int64 at the start, K where masked.
        at: (B, m) positions of the sequence that the first step computes.
    """

    steps: Sequence[Step]
    tensors: tuple[Tensor, ...]
    uniform: bool
    tokens: Tensor
    at: Tensor

    @abstractmethod
    def decide(
        self, step: int, logits: Tensor, tokens: Tensor, at: Tensor, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Draw tokens at some positions, and mask the least certain again.

        Args:
            logits: (B, m, K) float32 at positions `at` (B, m); tokens: (B, N), K where masked.
            tensors: in place of its own.

        Returns:
            The new tokens, and the positions that the next step computes.
        """


class Backbone(OfficialNetwork, ABC):
    """A masked generative Transformer.

    Attributes:
        grid: its tokens; codes: K, and the number that stands for a masked token.
        width: D; levels; sequence_rows: M / T.
        blocks: each called as block(x (B, M, D), context, at=None or (B, m) int64), the results then being those at
            these positions alone.
        positions: (M, D), what is added to embeddings.
        norm: behind the last block.
    """

    grid: TokenGrid
    codes: int
    width: int
    levels: int
    sequence_rows: int
    blocks: nn.ModuleList
    positions: Tensor
    norm: nn.Module

    @abstractmethod
    def embed(
        self,
        tokens: Tensor,
        masked: Tensor,
        prompt: Tensor,
        use_prompt: Tensor,
        *,
        level: int = 0,
        at: Tensor | None = None,
    ) -> Inputs:
        """What enters the backbone's blocks, and the control branch's.

        Args:
            tokens: (B, N) int64; values at masked positions are ignored. masked: (B, N) bool.
            prompt: (B, *P); with `at` (B, Q, *P).
            use_prompt: (B,) bool; where False the pass is unconditional.
            at: (B, N) int64, which of several prompts a token takes, -1: none.
        """

    @abstractmethod
    def head(self, level: int) -> nn.Linear:
        """D -> K, behind `norm`."""

    @abstractmethod
    def random_mask(self, size: int, level: int, generator: torch.Generator) -> Tensor:
        """Which tokens of `size` clips a training step masks: (size, N) bool; at least one of the level in each."""

    @abstractmethod
    def of_level(self, values: Tensor, level: int) -> Tensor:
        """What belongs to the tokens that a level decides: (B, N) -> (B, n)."""

    @abstractmethod
    def plain_decoding(self, how: Decoding, seeds: Sequence[int], known: tuple[Tensor, Tensor] | None) -> PlainDecoding:
        """
        Args:
            known: tokens (B, N) and a bool mask (B, N) of those to keep as they are.
        """

    @abstractmethod
    def fast_decoding(self, how: Decoding, seeds: Sequence[int], known: tuple[Tensor, Tensor] | None) -> FastDecoding:
        """As `plain_decoding`; in float32 both decide alike."""

    @abstractmethod
    def hear(
        self,
        prompt: Tensor,
        at: Tensor | None,
        negative: Tensor | None,
        networks: Sequence[nn.ModuleList],
    ) -> tuple[Tensor, ...]:
        """Everything that the fast sampler computes of prompts once for all steps.

        Args:
            prompt, at: as of `embed`; negative: (B, *P) of what is not to be heard.
            networks: the blocks of the backbone, and those of its control branch.
        """

    @abstractmethod
    def embed_heard(self, heard: Sequence[Tensor], tokens: Tensor, words: Sequence[int]) -> Tensor:
        """Embeddings without positions, (W, B, M, D), for each of some kinds of words (`sampling.guidance.Words`).

        Args:
            heard: from `hear`; tokens: (B, N), K where masked.
        """

    @abstractmethod
    def contexts(
        self, heard: Sequence[Tensor], words: Sequence[int], level: int, network: int, dtype: torch.dtype
    ) -> Sequence[Any]:
        """Of every block of one of the networks, for passes with such words, of B clips each, one after the other."""

    def grouped(self, control: ControlLayers | None, dtype: torch.dtype) -> Any:
        """All blocks of backbone and control branch in few operations, for GPUs; None: one after the other."""
        return None

    def logits(self, x: Tensor, level: int) -> Tensor:
        """(..., D) of the last block -> (..., K)."""
        return self.head(level)(self.norm(x))  # type: ignore[no-any-return]

    def forward(self, inputs: Inputs, residuals: Sequence[Tensor] = ()) -> Tensor:
        """Logits of the tokens that the inputs' level decides.

        Args:
            residuals: (B, M, D), added after block 1, 2, ...

        Returns:
            (B, n, K)
        """
        x = inputs.x
        for index, (block, context) in enumerate(zip(self.blocks, inputs.contexts, strict=True)):
            x = block(x, context)
            if index < len(residuals):
                x = x + residuals[index]
        return self.logits(x, inputs.level)


class ControlLayers(Protocol):
    """What the sampler needs of a control branch."""

    blocks: nn.ModuleList
    zero_out: nn.ModuleList
