"""The random numbers of sampling.

Shape letters: B clips, S steps, N tokens a clip, K codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Noise:
    """Random numbers of one clip, drawn on the CPU from a seed of its own.

    A clip thus gets the same tokens whatever batch, order or device it is sampled in.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.device = device

    def gumbel(self, *shape: int) -> Tensor:
        return gumbel(torch.rand(shape, generator=self.generator)).to(self.device)


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise of the shape of uniform numbers."""
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1.0 - 1e-7)))


def draw_ahead(
    seeds: Sequence[int], steps: int, num_tokens: int, codes: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What `Noise` gives for all steps in their order: for the draws (S, B, N, K), for the confidences (S, B, N)."""
    size = num_tokens * codes
    uniform = torch.empty(steps, len(seeds), size + num_tokens)
    for clip, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        uniform[:, clip] = torch.rand(steps, size + num_tokens, generator=generator)
    noise = gumbel(uniform.to(device))
    return noise[..., :size].reshape(*noise.shape[:2], num_tokens, codes), noise[..., size:]
