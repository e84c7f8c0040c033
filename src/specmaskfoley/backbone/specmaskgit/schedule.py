"""How many tokens are still masked after each step."""

from __future__ import annotations

import math


def mask_counts(num_tokens: int, steps: int, schedule: str = "cosine") -> list[int]:
    """How many tokens are still masked after each step: strictly falling as long as it can, 0 at the end."""
    counts = []
    left = num_tokens
    for step in range(1, steps + 1):
        progress = step / steps
        share = math.cos(math.pi / 2 * progress) if schedule == "cosine" else 1.0 - progress
        # At least one token settles a step; without this, many steps on a short grid would idle at the start.
        left = max(0, min(math.floor(num_tokens * share), left - 1)) if step < steps else 0
        counts.append(left)
    return counts
