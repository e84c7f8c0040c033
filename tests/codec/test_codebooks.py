"""Codebooks that follow their vectors, however many a codec has.

Shape letters: n vectors, C code width, K codes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from specmaskfoley.codec.codebooks import MovingCodebook, codebook_usage, nearest_code

K, C = 8, 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(decay: float = 0.9, dead_below: float = 0.0) -> MovingCodebook:
    codes = torch.randn(K, C, generator=generator(1))
    return MovingCodebook(codes, torch.full((K,), 2.0), 2.0 * codes, decay, dead_below)


def vectors(count: int = 40, seed: int = 2) -> Tensor:
    return torch.randn(count, C, generator=generator(seed))


def alone(values: Tensor) -> Tensor:
    """The sum over the processes of which there is one."""
    return values


def test_nearest_is_by_squared_distance_and_ties_go_to_the_first():
    found, codes = vectors(), made().codes
    expected = ((found.numpy()[:, None] - codes.numpy()[None]) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(nearest_code(found, codes), expected)
    assert nearest_code(found[:5], codes[:1].repeat(4, 1)).tolist() == [0] * 5


def test_usage_and_perplexity():
    used, perplexity = codebook_usage(torch.tensor([[0, 0], [3, 3]]), 4)
    assert (used.item(), perplexity.item()) == (0.5, pytest.approx(2.0))


def test_averages_move_as_computed_by_hand():
    book, found = made(), vectors()
    tokens = nearest_code(found, book.codes)
    counts, sums = 0.9 * book.counts.numpy(), 0.9 * book.sums.numpy()
    for vector, token in zip(found.numpy(), tokens.tolist(), strict=True):
        counts[token] += 0.1
        sums[token] += 0.1 * vector
    book.update(found, tokens, generator(), alone)
    np.testing.assert_allclose(book.counts, counts, rtol=1e-5)
    np.testing.assert_allclose(book.sums, sums, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(book.codes, sums / counts[:, None], rtol=1e-4, atol=1e-5)


def test_dead_codes_start_again_at_vectors_of_the_step_each_at_its_own():
    book, found = made(dead_below=0.5), vectors()
    book.counts[[2, 5]] = 0.1
    book.sums[[2, 5]] = 100.0
    tokens = torch.zeros(len(found), dtype=torch.int64)  # nothing comes to the dead ones
    book.update(found, tokens, generator(4), alone)
    picked = torch.randint(len(found), (K,), generator=generator(4))
    torch.testing.assert_close(book.codes[[2, 5]], found[picked[:2]])
    assert book.counts[[2, 5]].tolist() == [1.0, 1.0]
    assert (book.counts >= 0.5).all()


def test_processes_move_one_codebook_together():
    """Each sees half of the vectors; their sums are exchanged."""
    whole, halves, found = made(), made(), vectors()
    tokens = nearest_code(found, whole.codes)
    whole.update(found, tokens, generator(), alone)
    sent: list[Tensor] = []
    other = made()
    other.update(found[20:], tokens[20:], generator(), lambda values: sent.append(values.clone()) or values)
    halves.update(found[:20], tokens[:20], generator(), lambda values: values + sent.pop(0))
    torch.testing.assert_close(halves.codes, whole.codes)


def test_seeds_are_the_means_of_what_is_nearest_and_in_balance_with_a_step():
    groups = 10 * torch.eye(C)[[0, 1, 2] * 100] + 0.1 * vectors(300)
    book = MovingCodebook(torch.zeros(K, C), torch.zeros(K), torch.zeros(K, C), 0.9, 0.5)
    book.seed(groups, 30, generator())
    assert float(book.counts.sum()) == pytest.approx(30, rel=1e-5)
    nearest = nearest_code(groups, book.codes)
    assert float((groups - book.codes[nearest]).square().sum(1).mean()) < 0.1
    for code in nearest.unique().tolist():
        assert (book.codes[code] - groups[nearest == code].mean(0)).norm() < 0.1
    kept = book.counts > 0
    torch.testing.assert_close(book.sums[kept], (book.codes * book.counts[:, None])[kept], atol=0.3, rtol=0.1)


def test_the_same_generator_gives_the_same_seeds():
    found = [made(), made(), made()]
    for book, seed in zip(found, (0, 0, 1), strict=True):
        book.seed(vectors(), 10, generator(seed))
    assert torch.equal(found[0].codes, found[1].codes)
    assert not torch.equal(found[0].codes, found[2].codes)
