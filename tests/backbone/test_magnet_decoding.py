"""MAGNeT's decoding: what each step settles, and that the fast one decides as the one that is written to be read.

Shape letters: B clips, F codebooks, T columns, N = F * T, K codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from specmaskfoley.backbone.layers import take
from specmaskfoley.backbone.magnet.decoding import DisjointSpans, MagnetPlainDecoding, draw
from specmaskfoley.backbone.magnet.network import MagnetNetwork
from specmaskfoley.settings import Decoding, Magnet, TokenGrid

CODES, PROMPT = 7, 5
NUCLEUS = Decoding(steps=(4, 3, 2), temperature=3.0, top_p=0.8)
Known = tuple[Tensor, Tensor]


def build(columns: int = 13, span: int = 3, arrangement: str = "nonoverlap", seed: int = 0) -> MagnetNetwork:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"depth": 2, "width": 16, "heads": 2, "mlp_width": 16, "window": 2}
    how = Magnet(kind="magnet", codebooks=3, span=span, arrangement=arrangement, **sizes)
    network = MagnetNetwork(how, grid=TokenGrid(3, columns, 320), codes=CODES, prompt_width=PROMPT).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network.requires_grad_(False)


def some_known(network: MagnetNetwork, batch: int, seed: int, share: float) -> Known:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(CODES, (batch, network.grid.size), generator=generator)
    # A clip each as dense as it comes.
    return tokens, torch.rand(tokens.shape, generator=generator) < share * torch.rand(batch, 1, generator=generator) * 2


def prompts(batch: int) -> Tensor:
    """The same for all clips."""
    return torch.randn(1, 4, PROMPT, generator=torch.Generator().manual_seed(5)).expand(batch, -1, -1)


def logits_of(network: MagnetNetwork, tokens: Tensor, masked: Tensor, level: int) -> Tensor:
    yes = torch.ones(len(tokens), dtype=torch.bool)
    return network(network.embed(tokens, masked, prompts(len(tokens)), yes, level=level))


def plainly(
    network: MagnetNetwork, how: Decoding, seeds: list[int], known: Known | None = None
) -> Iterator[tuple[int, MagnetPlainDecoding, Tensor]]:
    """Before each step: its number, the state and the logits; the step is taken when the next is asked for."""
    decoding = network.plain_decoding(how, seeds, known)
    for number, step in enumerate(decoding.steps):
        if step.count:
            logits = logits_of(network, decoding.tokens, decoding.masked, step.level)
            yield number, decoding, logits
            decoding.decide(number, logits)
    yield len(decoding.steps), decoding, torch.empty(0)


def plain_tokens(network: MagnetNetwork, how: Decoding, seeds: list[int], known: Known | None = None) -> Tensor:
    *_, (_, decoding, _) = plainly(network, how, seeds, known)
    assert not decoding.masked.any()
    return decoding.tokens


def fast_tokens(network: MagnetNetwork, how: Decoding, seeds: list[int], known: Known | None = None) -> Tensor:
    """Through what the sampler calls: prompts heard once, and the last block and head at some columns alone."""
    decoding = network.fast_decoding(how, seeds, known)
    heard = network.hear(prompts(len(seeds)), None, None, [network.blocks])
    tokens, at = decoding.tokens, decoding.at
    for number, step in enumerate(decoding.steps):
        if step.count == 0:
            continue
        assert at.shape == (len(seeds), step.count)
        x = (network.embed_heard(heard, tokens, [1]) + network.positions)[0]
        first, last = network.contexts(heard, [1], step.level, 0, torch.float32)
        x = network.blocks[1](network.blocks[0](x, first), last, at)
        tokens, at = decoding.decide(number, network.logits(x, step.level), tokens, at, decoding.tensors)
    assert at.shape == (len(seeds), 0)
    return tokens


ARRANGEMENTS = ["nonoverlap", "stride1"]


@settings(max_examples=15)
@given(
    columns=st.integers(4, 20),
    span=st.integers(1, 4),
    arrangement=st.sampled_from(ARRANGEMENTS),
    batch=st.integers(1, 3),
    steps=st.tuples(*[st.integers(1, 5)] * 3),
    temperature=st.floats(0.0, 5.0),
    top_p=st.sampled_from([1e-9, 0.3, 0.8, 1.0]),
    share=st.sampled_from([None, 0.0, 0.3, 0.7, 1.0]),
    seed=st.integers(0, 2**31),
)
@torch.inference_mode()
def test_both_decide_alike(columns, span, arrangement, batch, steps, temperature, top_p, share, seed):
    network = build(columns, span, arrangement, seed)
    how = Decoding(steps=steps, temperature=temperature, top_p=top_p)
    seeds = list(range(seed, seed + batch))
    known = None if share is None else some_known(network, batch, seed, share)
    quick = network.fast_decoding(how, seeds, known)
    tokens, at = quick.tokens, quick.at
    for number, plain, logits in plainly(network, how, seeds, known):
        assert torch.equal(tokens, plain.tokens.masked_fill(plain.masked, CODES))
        if number < len(plain.steps):
            assert quick.steps == plain.steps
            assert at.shape == (batch, plain.steps[number].count)
            masked = network.of_level(plain.masked, plain.steps[number].level)
            assert at.sort(1).values.diff(dim=1).gt(0).all()  # unique
            assert torch.zeros_like(masked).scatter(1, at, True)[masked].all()
            tokens, at = quick.decide(number, take(logits, at), tokens, at, quick.tensors)
    assert at.shape == (batch, 0)
    assert (tokens < CODES).all()
    if known is not None:
        assert torch.equal(tokens[known[1]], known[0][known[1]])


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("share", [None, 0.4])
@torch.inference_mode()
def test_the_fast_way_through_the_network_gives_the_same_tokens(arrangement, share):
    for seed in range(5):
        network = build(13, 3, arrangement, seed)
        known = None if share is None else some_known(network, 3, seed, share)
        seeds = [seed, seed + 1, seed + 2]
        assert torch.equal(fast_tokens(network, NUCLEUS, seeds, known), plain_tokens(network, NUCLEUS, seeds, known))


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@torch.inference_mode()
def test_a_clip_does_not_depend_on_its_batch(arrangement):
    network = build(13, 3, arrangement)
    tokens, mask = some_known(network, 3, 1, 0.4)
    free, filled = (plain_tokens(network, NUCLEUS, [7, 8, 7], known) for known in (None, (tokens, mask)))
    assert not torch.equal(free[0], free[1])
    for row, seed in enumerate([7, 8, 7]):
        one = slice(row, row + 1)
        assert torch.equal(plain_tokens(network, NUCLEUS, [seed])[0], free[row])
        assert torch.equal(plain_tokens(network, NUCLEUS, [seed], (tokens[one], mask[one]))[0], filled[row])


@torch.inference_mode()
def test_random_numbers_are_the_clips_own():
    network = build()
    first = network.plain_decoding(NUCLEUS, [4, 5], None).plan.draws
    second = network.plain_decoding(NUCLEUS, [5, 6, 4], None).plan.draws
    assert torch.equal(first[:, 0], second[:, 2])
    assert torch.equal(first[:, 1], second[:, 0])
    assert not torch.equal(first[:, 0], first[:, 1])
    assert len(first.unique()) == first.numel()


@torch.inference_mode()
def test_a_step_reads_the_tensors_that_it_is_given():
    """What a CUDA graph needs: another run's tensors in the same places give that run's tokens, and nothing is changed
    in place."""
    network = build()
    warm = Decoding(steps=NUCLEUS.steps, temperature=1.0, top_p=0.5)
    one, other = network.fast_decoding(NUCLEUS, [1, 2], None), network.fast_decoding(warm, [3, 4], None)
    assert [tensor.shape for tensor in one.tensors] == [tensor.shape for tensor in other.tensors]
    kept = [tensor.clone() for tensor in (*other.tensors, other.tokens, other.at)]
    tokens, at = other.tokens, other.at
    mine, here = other.tokens, other.at
    for number, step in enumerate(one.steps):
        masked = tokens == CODES
        logits = logits_of(network, tokens, masked, step.level)
        tokens, at = other.decide(number, take(logits, at), tokens, at, other.tensors)
        mine, here = one.decide(number, take(logits, here), mine, here, other.tensors)
        assert torch.equal(tokens, mine)
        assert torch.equal(at, here)
    now = (*other.tensors, other.tokens, other.at)
    assert all(torch.equal(before, after) for before, after in zip(kept, now, strict=True))


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_no_step_waits_for_a_device(arrangement, monkeypatch):
    """Neither the decoding nor the network asks for a value."""
    network = build(13, 3, arrangement)
    decoding = network.fast_decoding(NUCLEUS, [0, 1], None)
    heard = network.hear(prompts(2), None, prompts(2), [network.blocks])

    def refuse(*_: object) -> None:
        raise AssertionError("a value was asked for")

    for name in ("item", "tolist", "cpu", "nonzero", "unique", "__bool__", "__int__", "__float__", "__index__"):
        monkeypatch.setattr(Tensor, name, refuse)
    with pytest.raises(AssertionError, match="a value was asked for"):
        bool(decoding.tokens[0, 0])
    tokens, at = decoding.tokens, decoding.at
    for number, step in enumerate(decoding.steps):
        x = (network.embed_heard(heard, tokens, [0, 1]) + network.positions).flatten(0, 1)
        first, last = network.contexts(heard, [0, 1], step.level, 0, torch.float32)
        x = network.blocks[1](network.blocks[0](x, first), last, at.repeat(2, 1))
        logits = network.logits(x[2:], step.level)
        tokens, at = decoding.decide(number, logits, tokens, at, decoding.tensors)


@torch.inference_mode()
def test_codebooks_are_decided_one_after_the_other():
    network = build()
    shape = (2, 3, 13)
    for number, decoding, _ in plainly(network, NUCLEUS, [0, 1]):
        level = decoding.steps[number].level if number < len(decoding.steps) else 3
        masked = decoding.masked.view(shape)
        assert not masked[:, :level].any()
        assert masked[:, level + 1 :].all()


@torch.inference_mode()
def test_whole_spans_are_masked_and_what_is_settled_stays():
    network = build(columns=14)  # the last span has two columns
    spans, previous = DisjointSpans(3, 14), None
    for number, decoding, _ in plainly(network, NUCLEUS, [0, 1]):
        masked = decoding.masked.view(2, 3, 14)
        assert torch.equal(spans.read(masked.flatten(0, 1)), masked.flatten(0, 1))
        if number < len(decoding.steps):
            count = decoding.steps[number].count
            level = masked[:, decoding.steps[number].level]
            assert spans.columns(int(spans.units(level)[0])) == count
            assert level.sum(1).max() <= count
        if previous is not None:
            before, tokens = previous
            assert not (decoding.masked & ~before).any()
            assert torch.equal(decoding.tokens[~before], tokens[~before])
        previous = decoding.masked.clone(), decoding.tokens.clone()


@torch.inference_mode()
def test_the_least_certain_spans_are_masked_again():
    spans = DisjointSpans(2, 5)
    likely = torch.tensor([[0.1, 0.9, 0.5, 0.3, 0.8], [0.2, 0.1, 0.9, 0.9, 0.7]])
    everything = torch.ones(2, 5, dtype=torch.bool)
    found = spans.least_certain(likely, everything, torch.tensor([1, 2]))
    assert found.tolist() == [[False, False, True, True, False], [True, True, False, False, True]]
    # Settled spans are never masked again, however unlikely.
    settled = torch.tensor([[True, True, False, False, True]] * 2)
    found = spans.least_certain(likely, settled, torch.tensor([1, 2]))
    assert found.tolist() == [[False, False, False, False, True], [True, True, False, False, True]]


@torch.inference_mode()
def test_known_tokens_are_seen_from_the_first_pass_on():
    network = build()
    known = some_known(network, 2, 3, 0.5)
    for _, decoding, _ in plainly(network, NUCLEUS, [0, 1], known):
        assert not decoding.masked[known[1]].any()
        assert torch.equal(decoding.tokens[known[1]], known[0][known[1]])


@torch.inference_mode()
def test_counts_are_in_proportion_to_what_is_unknown():
    network = build(columns=30)
    tokens = torch.zeros(3, 90, dtype=torch.int64)
    known = torch.zeros(3, 3, 30, dtype=torch.bool)
    known[1, 0, :15] = True  # half of its spans
    known[2, 0, 1::3] = True  # of every span something
    known[2, 1] = True  # this level has nothing to decide
    how = Decoding(steps=(4, 2, 2), temperature=1.0, top_p=1.0)
    decoding = network.plain_decoding(how, [0, 1, 2], (tokens, known.flatten(1)))
    assert decoding.plan.counts.tolist() == [
        [10, 5, 10],
        [8, 4, 8],
        [5, 2, 5],
        [1, 1, 1],
        [10, 10, 0],
        [1, 1, 0],
        [10, 10, 10],
        [1, 1, 1],
    ]
    assert [step.count for step in decoding.steps] == [30, 24, 15, 3, 30, 3, 30, 3]


@torch.inference_mode()
def test_levels_without_anything_to_decide_are_skipped():
    network = build()
    tokens = torch.arange(2 * 39).view(2, 39) % CODES
    known = torch.zeros(2, 3, 13, dtype=torch.bool)
    known[:, 1] = True
    decoding = network.fast_decoding(NUCLEUS, [0, 1], (tokens, known.flatten(1)))
    assert [step.count > 0 for step in decoding.steps] == [True] * 4 + [False] * 3 + [True] * 2
    found = fast_tokens(network, NUCLEUS, [0, 1], (tokens, known.flatten(1)))
    assert torch.equal(found.view(2, 3, 13)[:, 1], tokens.view(2, 3, 13)[:, 1])
    everything = tokens, torch.ones_like(tokens, dtype=torch.bool)
    assert torch.equal(fast_tokens(network, NUCLEUS, [0, 1], everything), tokens)
    assert torch.equal(plain_tokens(network, NUCLEUS, [0, 1], everything), tokens)


# ---- draws ----

ONE = torch.tensor(1.0)


def test_draws_follow_the_probabilities():
    logits = torch.randn(1, 1, CODES, generator=torch.Generator().manual_seed(0))
    for temperature in (0.5, 2.0):
        expected = (logits / temperature).softmax(-1)[0, 0]
        even = (torch.arange(20000)[None] + 0.5) / 20000
        codes, likely = draw(logits.expand(1, 20000, -1), even, torch.tensor(temperature), ONE)
        torch.testing.assert_close(codes[0].bincount(minlength=CODES) / 20000, expected, atol=2e-4, rtol=0)
        torch.testing.assert_close(likely[0], expected[codes[0]])


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(1e-9, {2}), (0.39, {2}), (0.41, {2, 0}), (0.69, {2, 0}), (0.71, {0, 2, 3}), (1.0, {0, 1, 2, 3})],
)
def test_the_nucleus_is_the_fewest_that_hold_more_than_top_p(top_p, kept):
    probability = torch.tensor([0.3, 0.1, 0.4, 0.2])
    even = (torch.arange(1000)[None] + 0.5) / 1000
    codes, likely = draw(probability.log().expand(1, 1000, 4), even, ONE, torch.tensor(top_p))
    assert set(codes.unique().tolist()) == kept
    torch.testing.assert_close(likely[0], probability[codes[0]])  # before the cut
    whole = sum(probability[one].item() for one in kept)
    for code in kept:
        assert (codes == code).float().mean().item() == pytest.approx(probability[code].item() / whole, abs=0.002)


def test_a_nucleus_that_holds_just_top_p_takes_one_more():
    codes, _ = draw(torch.zeros(1, 2, 2), torch.tensor([[0.1, 0.9]]), ONE, torch.tensor(0.5))
    assert codes.tolist() == [[0, 1]]


def test_the_ends_of_the_unit_interval_draw_what_is_possible():
    logits = torch.tensor([0.0, 3.0, -200.0, 1.0, -200.0]).expand(1, 2, 5)
    ends = torch.tensor([[0.0, 1 - 2**-24]])
    for top_p in (0.5, 1.0):
        codes, likely = draw(logits, ends, ONE, torch.tensor(top_p))
        assert codes[0, 0] == 1
        assert (likely > 0).all()


@pytest.mark.parametrize("missing", [{"temperature": None}, {"top_p": None}])
def test_settings_that_are_missing_are_named(missing):
    how = Decoding.model_validate({**dict(NUCLEUS), **missing})
    with pytest.raises(ValueError, match=r"sample\.temperature and sample\.top_p.*None"):
        build().plain_decoding(how, [0], None)


def test_clips_are_alike_where_nothing_is_known():
    network = build()
    assert network.fast_decoding(NUCLEUS, [0], None).uniform
    assert not network.fast_decoding(NUCLEUS, [0], some_known(network, 1, 0, 0.5)).uniform
