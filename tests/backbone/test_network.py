"""SpecMaskGIT: the mask is the condition, and nothing under it is seen.

Shape letters: B batch, N tokens a clip, P prompt width.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from specmaskfoley.backbone.layers import Block
from specmaskfoley.backbone.specmaskgit.network import SpecMaskGIT
from specmaskfoley.settings import SpecMaskGIT as BackboneSettings
from specmaskfoley.settings import TokenGrid

CODES, TOKENS, PROMPT = 11, 12, 6
YES, NO = torch.tensor([True, True]), torch.tensor([False, False])

PAPER = BackboneSettings(kind="specmaskgit", depth=24, width=768, heads=12, mlp_width=3072)


@pytest.fixture(scope="module")
def backbone() -> SpecMaskGIT:
    torch.manual_seed(0)
    settings = BackboneSettings(kind="specmaskgit", depth=3, width=16, heads=2, mlp_width=32)
    made = SpecMaskGIT(settings, grid=TokenGrid(2, TOKENS // 2, 1), codes=CODES, prompt_width=PROMPT).eval()
    for parameter in made.parameters():  # as if trained: at their small start, many effects vanish in rounding
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """tokens (2, N), masked (2, N) with at least one of each kind a row, prompt (2, P)."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(CODES, (2, TOKENS), generator=generator)
    masked = torch.rand(2, TOKENS, generator=generator) < 0.5
    masked[:, 0], masked[:, 1] = True, False
    return tokens, masked, torch.randn(2, PROMPT, generator=generator)


@given(seed=st.integers(0, 2**31), use_prompt=st.booleans())
@torch.inference_mode()
def test_tokens_under_the_mask_do_not_leak(backbone, seed, use_prompt):
    tokens, masked, prompt = batch(seed)
    other = torch.where(masked, (tokens + 1) % CODES, tokens)
    chosen = YES if use_prompt else NO
    first = backbone(backbone.embed(tokens, masked, prompt, chosen))
    assert torch.equal(first, backbone(backbone.embed(other, masked, prompt, chosen)))


@torch.inference_mode()
def test_masked_positions_may_hold_what_is_no_code(backbone):
    tokens, masked, prompt = batch()
    none = torch.where(masked, -1, tokens)
    assert torch.equal(backbone.embed(none, masked, prompt, YES).x, backbone.embed(tokens, masked, prompt, YES).x)


@torch.inference_mode()
def test_every_visible_token_counts(backbone):
    tokens, masked, prompt = batch()
    first = backbone(backbone.embed(tokens, masked, prompt, YES))
    for position in torch.nonzero(~masked[0])[:, 0].tolist():
        other = tokens.clone()
        other[0, position] = (tokens[0, position] + 1) % CODES
        second = backbone(backbone.embed(other, masked, prompt, YES))
        assert not torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])


@torch.inference_mode()
def test_the_prompt_is_the_mask_embedding(backbone):
    tokens, masked, prompt = batch()
    x = backbone.embed(tokens, masked, prompt, YES).x
    expected = backbone.prompt(prompt)[:, None] + backbone.positions
    assert torch.equal(x[masked], expected[masked])
    assert torch.equal(x[~masked], (backbone.tokens(tokens) + backbone.positions)[~masked])


@torch.inference_mode()
def test_with_nothing_masked_the_prompt_changes_nothing(backbone):
    tokens, masked, prompt = batch()
    nothing = torch.zeros_like(masked)
    x = backbone.embed(tokens, nothing, prompt, YES).x
    assert torch.equal(x, backbone.embed(tokens, nothing, -prompt, YES).x)
    assert torch.equal(x, backbone.embed(tokens, nothing, prompt, NO).x)


@torch.inference_mode()
def test_with_something_masked_the_prompt_counts(backbone):
    tokens, masked, prompt = batch()
    first = backbone(backbone.embed(tokens, masked, prompt, YES))
    assert not torch.allclose(first, backbone(backbone.embed(tokens, masked, -prompt, YES)), atol=1e-3)
    assert not torch.allclose(first, backbone(backbone.embed(tokens, masked, prompt, NO)), atol=1e-3)


@torch.inference_mode()
def test_unconditional_rows_ignore_the_prompt(backbone):
    tokens, masked, prompt = batch()
    mixed = torch.tensor([False, True])
    first = backbone(backbone.embed(tokens, masked, prompt, mixed))
    second = backbone(backbone.embed(tokens, masked, -prompt, mixed))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
    x = backbone.embed(tokens, masked, prompt, NO).x
    assert torch.equal(x[masked], (backbone.unconditional_mask + backbone.positions).expand(2, -1, -1)[masked])


@torch.inference_mode()
def test_masked_positions_differ_by_their_place(backbone):
    tokens, _, prompt = batch()
    logits = backbone(backbone.embed(tokens, torch.ones(2, TOKENS, dtype=torch.bool), prompt, YES))
    assert logits.shape == (2, TOKENS, CODES)
    assert not torch.allclose(logits[0, 0], logits[0, 1], atol=1e-3)


@torch.inference_mode()
def test_residuals_reach_only_their_clip(backbone):
    tokens, masked, prompt = batch()
    inputs = backbone.embed(tokens, masked, prompt, YES)
    residuals = [torch.randn(1, TOKENS, 16), torch.randn(1, TOKENS, 16)]
    of_both = [torch.cat([torch.zeros_like(one), one]) for one in residuals]
    plain, steered = backbone(inputs), backbone(inputs, of_both)
    assert torch.equal(plain[0], steered[0])
    assert not torch.allclose(plain[1], steered[1], atol=1e-3)
    torch.testing.assert_close(backbone(inputs._replace(x=inputs.x[1:]), residuals)[0], steered[1])


@torch.inference_mode()
def test_residual_i_is_added_after_block_i(backbone):
    tokens, masked, prompt = batch()
    inputs = backbone.embed(tokens, masked, prompt, YES)
    residuals = [torch.randn(2, TOKENS, 16), torch.randn(2, TOKENS, 16)]
    h = backbone.blocks[0](inputs.x) + residuals[0]
    h = backbone.blocks[1](h) + residuals[1]
    h = backbone.blocks[2](h)
    torch.testing.assert_close(backbone(inputs, residuals), backbone.to_codes(backbone.norm(h)))


def test_parameter_counts_of_the_paper():
    with torch.device("meta"):
        block = Block(768, 12, 3072)
        backbone = SpecMaskGIT(PAPER, grid=TokenGrid(5, 53, 4096), codes=1024, prompt_width=512)
    assert sum(p.numel() for p in block.parameters()) == 7_087_872
    assert sum(p.numel() for p in backbone.blocks.parameters()) == 170_108_928
    # Blocks, 1024 codes and one mask, 265 positions, CLAP 512 -> 768, final norm, untied head.
    outside = 1025 * 768 + 265 * 768 + 513 * 768 + 2 * 768 + 769 * 1024
    assert sum(p.numel() for p in backbone.parameters()) == 170_108_928 + outside
