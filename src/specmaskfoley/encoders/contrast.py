"""Contrastive losses shared by encoders and judges.

Shape letters: n items, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(first: Tensor, second: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of (n, D) pairs: row i belongs to row i."""
    logits = first @ second.T * log_scale.clamp(max=4.6).exp()
    target = torch.arange(len(first), device=first.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def labelled_nce(items: Tensor, labels: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """Cross entropy of items (n, D) against the embeddings (labels, D) of every label's text."""
    return F.cross_entropy(items @ texts.T * log_scale.clamp(max=4.6).exp(), labels)
