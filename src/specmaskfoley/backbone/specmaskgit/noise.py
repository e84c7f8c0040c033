"""The random numbers of sampling.

Shape letters: B clips, S steps, N tokens a clip, K codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_noise(
    seeds: Sequence[int], steps: int, num_tokens: int, codes: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Gumbel noise of all steps: for the draws (S, B, N, K), for the confidences (S, B, N).

    Each clip has a stream of its own from its seed, so that its tokens do not depend on the batch and order in which it
    is sampled. The device draws it: numbers from the CPU would keep a GPU waiting.
    """
    size = num_tokens * codes
    uniform = torch.empty(steps, len(seeds), size + num_tokens, device=device)
    for clip, seed in enumerate(seeds):
        generator = torch.Generator(device).manual_seed(seed)
        uniform[:, clip] = torch.rand(steps, size + num_tokens, generator=generator, device=device)
    noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1.0 - 1e-7)))
    return noise[..., :size].reshape(steps, len(seeds), num_tokens, codes), noise[..., size:]
