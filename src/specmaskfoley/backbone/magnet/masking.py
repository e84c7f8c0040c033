"""Which tokens of a codebook MAGNeT masks in training: spans, that may overlap (Ziv et al. 2024, section 3.1).

Shape letters: B clips, T columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class SpanMasks:
    """Masks of T columns in spans of a length."""

    def __init__(self, columns: int, span: int) -> None:
        self.columns, self.span = columns, span
        self.starts = starts_by_percentage(columns, span)

    def draw(self, time: Tensor, order: Tensor) -> Tensor:
        """Masks from numbers in 0..1.

        Args:
            time: (B,); the masked share is about cos(pi/2 * time).
            order: (B, T), which places where spans start.

        Returns:
            (B, T) bool, at least one in each.
        """
        share = torch.cos(time * math.pi / 2)
        if self.span == 1:
            count = (share * self.columns).round()
        else:
            count = torch.tensor(self.starts)[(100 * share).round().long()]
        start = order.argsort(1) < count.clamp(min=1)[:, None]
        # The first columns lie in fewer possible spans, and are masked less often.
        masked = start.clone()
        for shift in range(1, self.span):
            masked[:, shift:] |= start[:, : self.columns - shift]
        return masked


def starts_by_percentage(columns: int, span: int) -> list[int]:
    """For 0..100 %, how many of the columns start a span where that much is masked on average.

    A column away from the edge is visible if none of `span` columns starts one: C(T - span, u) / C(T, u).
    """
    counts, found = [], 0
    for percentage in range(101):
        while 100 * math.comb(max(columns - span, 0), found) > (100 - percentage) * math.comb(columns, found):
            found += 1
        counts.append(found)
    return counts
