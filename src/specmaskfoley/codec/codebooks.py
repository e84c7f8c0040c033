"""Codebooks that follow the vectors they stand for: by moving averages, not by gradient (van den Oord et al. 2017).

Shape letters: n vectors, C code width, K codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def nearest_code(vectors: Tensor, codebook: Tensor) -> Tensor:
    """(n, C), (K, C) -> (n,) index of the nearest row; in float32, ties go to the lower index."""
    vectors, codebook = vectors.float(), codebook.float()
    distance = codebook.square().sum(1) - 2 * vectors @ codebook.T
    return distance.argmin(1)


def codebook_usage(tokens: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Share of codes used, and perplexity exp(H) of the code histogram (at most codebook_size)."""
    index = tokens.flatten()
    ones = torch.ones(len(index), dtype=torch.float64, device=index.device)
    # Not bincount, at which the host waits for the device.
    counts = torch.zeros(codebook_size, dtype=torch.float64, device=index.device).scatter_add_(0, index, ones)
    share = counts / counts.sum()
    entropy = -torch.special.xlogy(share, share).sum()
    return (counts > 0).double().mean(), entropy.exp()


@dataclass(frozen=True)
class MovingCodebook:
    """A codebook and the moving averages behind each code (van den Oord et al. 2017, appendix A.1).

    The tensors belong to modules, on their device already, and are changed in place.

    Args:
        codes: (K, C); counts: (K,); sums: (K, C).
        decay: of the averages, a step.
        dead_below: the count below which a code is dead, and starts again.
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor
    decay: float
    dead_below: float

    @torch.no_grad()
    def seed(self, vectors: Tensor, vectors_a_step: int, generator: torch.Generator) -> None:
        """The centres of k-means (Lloyd, 10 rounds) on vectors (n, C) become the codes.

        The averages are scaled to what one training step brings, so that they start in balance.
        """
        centres = _draw(vectors, len(self.codes), generator)
        for _ in range(10):
            counts, sums = _gather(vectors, nearest_code(vectors, centres), len(centres))
            empty = counts == 0
            centres = sums / counts.clamp(min=1)[:, None]
            centres[empty] = _draw(vectors, int(empty.sum()), generator)
        counts, sums = _gather(vectors, nearest_code(vectors, centres), len(centres))
        scale = vectors_a_step / len(vectors)
        self.counts.copy_(counts * scale)
        self.sums.copy_(torch.where(counts[:, None] > 0, sums * scale, centres))
        self.codes.copy_(centres)

    @torch.no_grad()
    def update(
        self, vectors: Tensor, tokens: Tensor, generator: torch.Generator, total: Callable[[Tensor], Tensor]
    ) -> None:
        """Move towards the vectors (n, C) that a step assigned to the codes by its tokens (n,).

        Args:
            total: sums over processes.
        """
        counts, sums = (total(one) for one in _gather(vectors, tokens, len(self.counts)))
        self.counts.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        dead = self.counts < self.dead_below
        # A dead code starts again at a vector that the encoder produces now (Dhariwal et al. 2020); with several
        # processes, at the mean of one from each. The n-th dead code takes the n-th of as many as there are codes: to
        # count the dead ones, or to index with `dead`, the host would wait for the device at every step.
        processes = total(torch.ones((), device=vectors.device))
        drawn = total(_draw(vectors, len(dead), generator)) / processes
        restarts, count = drawn[dead.cumsum(0) - 1], max(1.0, self.dead_below)
        self.counts.masked_fill_(dead, count)
        self.sums.copy_(torch.where(dead[:, None], restarts * count, self.sums))
        self.codes.copy_(self.sums / self.counts[:, None].clamp(min=1e-5))


def _draw(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, C) of the vectors, with repetition."""
    picked = torch.randint(len(vectors), (count,), generator=generator)
    return vectors[picked.to(vectors.device, non_blocking=True)].float()


def _gather(vectors: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Counts (size,) and sums (size, C) of the vectors of each index; as a product, so that the order is fixed."""
    one_hot = (index[:, None] == torch.arange(size, device=index.device)).float()
    return one_hot.sum(0), one_hot.T @ vectors.float()
