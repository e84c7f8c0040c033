"""Iterative decoding and Multi-CFG, with a small real backbone and control branch.

Shape letters: B clips, N tokens a clip, K codes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.small_networks import CODES, COLUMNS, ROWS, STEPS, N, Networks, conditions, of_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from specmaskfoley.backbone.role import Inputs
from specmaskfoley.backbone.specmaskgit.network import SpecMaskGIT
from specmaskfoley.backbone.specmaskgit.schedule import mask_counts
from specmaskfoley.sampling import reference
from specmaskfoley.sampling.guidance import (
    PROMPT,
    TEXT_VIDEO,
    UNCONDITIONAL,
    VIDEO,
    Condition,
    Pass,
    Words,
    guidance_plan,
    guidance_scale,
    guidance_weights,
    needs_video,
)
from specmaskfoley.sampling.reference import embed, guided_logits, sample_tokens
from specmaskfoley.settings import GUIDANCE_MODES, Sample, TokenGrid
from specmaskfoley.settings import SpecMaskGIT as BackboneSettings

UNWANTED = Pass(video=False, prompt=Words.NEGATIVE)
UNWANTED_VIDEO = Pass(video=True, prompt=Words.NEGATIVE)


@pytest.fixture(scope="module")
def shared_networks() -> Networks:
    return Networks()


@pytest.fixture
def networks(shared_networks) -> Networks:
    shared_networks.backbone_rows.clear()
    shared_networks.control_rows.clear()
    return shared_networks


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0, 3.0])
def test_guidance_weights_are_equation_one(t):
    generator = torch.Generator().manual_seed(0)
    logits = {row: torch.randn(4, 7, generator=generator) for row in (UNCONDITIONAL, VIDEO, TEXT_VIDEO, PROMPT)}
    nothing, video, both, prompt = logits.values()
    by_hand = {
        "multi": nothing + t * (both - nothing) + t * (video - nothing),
        "no_text_video": nothing + t * (video - nothing),
        "no_video": nothing + t * (both - nothing),
        "text": nothing + t * (prompt - nothing),
        "audio": nothing + t * (prompt - nothing),
    }
    assert set(by_hand) == set(GUIDANCE_MODES)
    for mode, expected in by_hand.items():
        weighted = sum(weight * logits[row] for row, weight in guidance_weights(mode, t).items())
        torch.testing.assert_close(weighted, expected)


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 2.0])
def test_what_is_not_to_be_heard_is_what_its_words_change(t, weight):
    """Away from where these words lead, seen from where the network would be without any."""
    generator = torch.Generator().manual_seed(0)
    rows = (UNCONDITIONAL, VIDEO, TEXT_VIDEO, PROMPT, UNWANTED_VIDEO, UNWANTED)
    logits = {row: torch.randn(4, 7, generator=generator) for row in rows}
    nothing, video, both, prompt, unwanted_video, unwanted = logits.values()
    by_hand = {
        "multi": nothing + t * (both - nothing) + t * (video - nothing) + t * weight * (video - unwanted_video),
        "no_text_video": nothing + t * (video - nothing) + t * weight * (video - unwanted_video),
        "no_video": nothing + t * (both - nothing) + t * weight * (video - unwanted_video),
        "text": nothing + t * (prompt - nothing) + t * weight * (nothing - unwanted),
        "audio": nothing + t * (prompt - nothing) + t * weight * (nothing - unwanted),
    }
    assert set(by_hand) == set(GUIDANCE_MODES)
    for mode, expected in by_hand.items():
        weighted = sum(one * logits[row] for row, one in guidance_weights(mode, t, weight).items())
        torch.testing.assert_close(weighted, expected)


@pytest.mark.parametrize("mode", GUIDANCE_MODES)
@given(t=st.floats(0, 100), negative=st.just(0.0) | st.floats(0, 10))
def test_guidance_weights_sum_to_one_and_none_is_zero(mode, t, negative):
    weights = guidance_weights(mode, t, negative)
    assert math.isclose(sum(weights.values()), 1.0, abs_tol=1e-9)
    assert all(weights.values())
    assert any(one.prompt == Words.NEGATIVE for one in weights) == (t * negative > 0)


@pytest.mark.parametrize("mode", GUIDANCE_MODES)
def test_without_weight_there_is_no_pass_for_what_is_not_to_be_heard(mode):
    assert guidance_plan(mode, [12], 3.0, 0.34, negative=0.0) == guidance_plan(mode, [12], 3.0, 0.34)
    plan = guidance_plan(mode, [12], 3.0, 0.34, negative=1.0)
    with_words = [any(one.prompt == Words.NEGATIVE for one in weights) for weights in plan]
    assert with_words == [False] * 4 + [True] * 8, "where guidance has begun"


def test_only_the_text_modes_do_without_video():
    assert {mode for mode in GUIDANCE_MODES if not needs_video(mode)} == {"text", "audio"}


def test_guidance_scale_rises_linearly_from_zero():
    assert [guidance_scale(step, 5, 3.0) for step in range(5)] == pytest.approx([0.0, 0.75, 1.5, 2.25, 3.0])
    assert guidance_scale(0, 1, 3.0) == 3.0


@given(steps=st.integers(2, 40), scale=st.floats(1, 30), mode=st.sampled_from(GUIDANCE_MODES))
def test_falling_guidance_is_magnets_spread_over_the_passes(steps, scale, mode):
    """From the scale to 1 as masked tokens get fewer: g = m * scale + (1 - m) * 1, m the masked share."""
    plan = guidance_plan(mode, [steps], scale, ramp="falling")
    guided = [one for one in plan[0] if one != UNCONDITIONAL]
    assert len(guided) == (2 if mode == "multi" else 1)
    for step, weights in enumerate(plan):
        masked = math.cos(math.pi / 2 * step / (steps - 1))
        g = masked * scale + (1.0 - masked)
        for one in guided:
            assert weights[one] == pytest.approx(g / len(guided))
        assert weights.get(UNCONDITIONAL, 0.0) == pytest.approx(1.0 - g)


def test_falling_guidance_by_hand():
    g = [guidance_scale(step, 5, 20.0, "falling") for step in range(5)]
    assert g == pytest.approx([20.0, 18.5537, 14.4350, 8.2710, 1.0], abs=1e-4)
    assert [guidance_scale(step, 5, 20.0, "falling", guided=2) for step in range(5)] == pytest.approx(
        [one / 2 for one in g]
    )
    assert guidance_scale(0, 1, 20.0, "falling") == 20.0
    assert guidance_scale(0, 1, 20.0, "falling", guided=2) == 10.0
    # Text alone ends at what the prompt says, and never below: logits of the prompt alone.
    assert guidance_plan("text", [5], 20.0, ramp="falling")[-1][PROMPT] == pytest.approx(1.0)


@pytest.mark.parametrize("ramp", ["rising", "falling"])
@pytest.mark.parametrize("mode", GUIDANCE_MODES)
def test_guidance_begins_anew_with_every_level(mode, ramp):
    alone = [guidance_plan(mode, [count], 3.0, 0.4, 1.0, ramp) for count in (6, 3, 1)]
    assert guidance_plan(mode, [6, 3, 1], 3.0, 0.4, 1.0, ramp) == [*alone[0], *alone[1], *alone[2]]


def test_where_guidance_starts_is_of_rising_guidance_alone():
    assert guidance_plan("multi", [6], 3.0, 0.9, ramp="falling") == guidance_plan("multi", [6], 3.0, ramp="falling")


@pytest.mark.parametrize("mode", GUIDANCE_MODES)
def test_before_its_start_guidance_is_one_pass_with_all_conditions(mode):
    whole = guidance_plan(mode, [12], 3.0)
    late = guidance_plan(mode, [12], 3.0, start=0.34)
    assert late[4:] == whole[4:]
    assert late[0] == late[1] == late[2] == late[3]
    ((row, weight),) = late[0].items()
    assert weight == 1.0
    assert row == (TEXT_VIDEO if mode == "multi" else next(one for one in whole[-1] if one != UNCONDITIONAL))
    assert guidance_plan(mode, [12], 3.0, start=0.0) == whole
    assert guidance_plan(mode, [12], 3.0, start=1.0)[10:] == [late[0], whole[11]]
    assert guidance_plan(mode, [1], 3.0, start=1.0) == guidance_plan(mode, [1], 3.0)


@pytest.mark.parametrize(
    ("mode", "scale", "backbone_rows", "control_rows"),
    [
        # Three steps of two clips: t = 0, scale / 2, scale.
        ("multi", 3.0, [2, 6, 6], [4, 4]),
        ("multi", 1.0, [2, 4, 6], [4, 4]),  # t = 0.5 takes the unconditional row out
        ("multi", 0.0, [2, 2, 2], []),
        ("no_text_video", 3.0, [2, 4, 4], [2, 2]),
        ("no_video", 2.0, [2, 2, 4], [2, 2]),  # t = 1 likewise
        ("text", 3.0, [2, 4, 4], []),
        ("audio", 3.0, [2, 4, 4], []),
    ],
)
@pytest.mark.parametrize("negative", [0.0, 1.0])
def test_only_rows_with_weight_are_computed(networks, monkeypatch, mode, scale, backbone_rows, control_rows, negative):
    taken: list[tuple[int, int]] = []

    def counted(*given: Any) -> Tensor:
        networks.backbone_rows.clear()
        networks.control_rows.clear()
        logits = guided_logits(*given)
        taken.append((sum(networks.backbone_rows), sum(networks.control_rows)))
        return logits

    monkeypatch.setattr(reference, "guided_logits", counted)
    three = STEPS.model_copy(update={"steps": 3})
    condition = conditions(2, prompts=2, negative=negative > 0)
    networks.sample(condition, [0, 1], mode=mode, scale=scale, negative=negative, settings=three)
    if negative and scale:
        more = 4 if mode == "no_video" else 2  # there the pass with video alone is one more
        backbone_rows = [2, *(rows + more for rows in backbone_rows[1:])]
        control_rows = [rows + more for rows in control_rows]
    assert [rows for rows, _ in taken] == backbone_rows
    assert [rows for _, rows in taken if rows] == control_rows


@pytest.mark.parametrize("mode", GUIDANCE_MODES)
@pytest.mark.parametrize("t", [0.0, 0.5, 2.0])
@torch.inference_mode()
def test_guided_logits_equal_each_row_run_alone(networks, mode, t):
    backbone, control, condition = networks.backbone, networks.control, conditions(negative=True)
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(CODES, (3, N), generator=generator)
    masked = torch.rand(3, N, generator=generator) < 0.6
    aligned = control.align(condition.sync, condition.semantic)

    def alone(row: Pass) -> Tensor:
        words = condition.negative if row.prompt == Words.NEGATIVE else condition.prompt
        inputs = backbone.embed(tokens, masked, words, torch.full((3,), row.prompt != Words.NONE))
        return backbone(inputs, control(inputs, aligned) if row.video else ())

    for negative in (0.0, 0.7):
        weights = guidance_weights(mode, t, negative)
        expected = sum(weight * alone(row) for row, weight in weights.items())
        found = guided_logits(backbone, control, tokens, masked, condition, aligned, weights)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_every_masked_token_holds_the_words_of_its_part(networks):
    backbone, condition = networks.backbone, conditions(3, prompts=2, negative=True)
    tokens = torch.randint(CODES, (3, N), generator=torch.Generator().manual_seed(3))
    masked = torch.rand(3, N, generator=torch.Generator().manual_seed(4)) < 0.7
    assert {-1, 0, 1} == set(condition.at[masked].tolist())
    found = {words: embed(backbone, tokens, masked, condition, words).x for words in Words}
    for clip, place in itertools.product(range(3), range(N)):
        which = int(condition.at[clip, place])
        none = backbone.unconditional_mask
        holds = {
            Words.NONE: none,
            Words.PROMPT: none if which < 0 else backbone.prompt(condition.prompt[clip, which]),
            Words.NEGATIVE: backbone.prompt(condition.negative[clip]),
        }
        for words, mask in holds.items():
            held = mask if masked[clip, place] else backbone.tokens.weight[tokens[clip, place]]
            torch.testing.assert_close(found[words][clip, place], held + backbone.positions[place])


@pytest.mark.parametrize("order", list(itertools.permutations([UNCONDITIONAL, VIDEO, PROMPT])))
@torch.inference_mode()
def test_guided_logits_do_not_depend_on_the_order_of_rows(networks, order):
    condition, weights = conditions(), {UNCONDITIONAL: -1.0, VIDEO: 1.5, PROMPT: 0.5}
    tokens, masked = torch.zeros(3, N, dtype=torch.int64), torch.ones(3, N, dtype=torch.bool)
    aligned = networks.control.align(condition.sync, condition.semantic)
    first, second = (
        guided_logits(networks.backbone, networks.control, tokens, masked, condition, aligned, given)
        for given in (weights, {row: weights[row] for row in order})
    )
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


@given(st.integers(1, 400), st.integers(1, 60), st.sampled_from(["cosine", "linear"]))
def test_mask_counts_fall_to_zero(num_tokens, steps, schedule):
    counts = mask_counts(num_tokens, steps, schedule)
    assert len(counts) == steps
    assert counts[0] < num_tokens
    assert counts[-1] == 0
    assert min(counts) >= 0
    for before, after in itertools.pairwise(counts):
        assert after <= before
        if before > 0:
            assert after < before


@given(st.integers(2, 60))
def test_mask_counts_of_a_long_sequence_are_maskgits_cosine(steps):
    num_tokens = 100_000
    counts = mask_counts(num_tokens, steps)
    expected = [num_tokens * math.cos(math.pi / 2 * step / steps) for step in range(1, steps + 1)]
    assert counts == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("mode", GUIDANCE_MODES)
def test_equal_seeds_give_equal_tokens(networks, mode):
    first = networks.sample(conditions(), [7, 8, 9], mode=mode)
    torch.manual_seed(99)  # the global generator plays no part
    assert torch.equal(first, networks.sample(conditions(), [7, 8, 9], mode=mode))
    assert first.shape == (3, N)
    assert first.dtype == torch.int64


def test_different_seeds_differ(networks):
    condition = of_clip(conditions(), 0)
    found = {tuple(networks.sample(condition, [seed])[0].tolist()) for seed in range(8)}
    assert len(found) == 8


def test_a_clips_tokens_do_not_depend_on_its_batch(networks):
    condition = conditions()
    together = networks.sample(condition, [7, 8, 9])
    for index, seed in enumerate([7, 8, 9]):
        assert torch.equal(networks.sample(of_clip(condition, index), [seed])[0], together[index])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    steps=st.integers(1, 20),
    temperature=st.floats(0, 20),
    scale=st.floats(0, 10),
    mode=st.sampled_from(GUIDANCE_MODES),
    schedule=st.sampled_from(["cosine", "linear"]),
)
def test_all_tokens_are_codes(shared_networks, seed, steps, temperature, scale, mode, schedule):
    given = Sample(steps=steps, gumbel_temperature=temperature, schedule=schedule, batch_size=4, videos=0)
    tokens = shared_networks.sample(conditions(2), [seed, seed + 1], mode=mode, scale=scale, settings=given)
    assert tokens.min() >= 0
    assert tokens.max() < CODES


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), steps=st.integers(1, 15), share=st.floats(0, 1))
def test_known_tokens_survive(shared_networks, seed, steps, share):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(CODES, (2, N), generator=generator)
    keep = torch.rand(2, N, generator=generator) < share
    changed = STEPS.model_copy(update={"steps": steps})
    found = shared_networks.sample(conditions(2), [1, 2], settings=changed, known=(tokens, keep))
    assert torch.equal(found[keep], tokens[keep])


def test_known_tokens_steer_the_rest(networks):
    keep = torch.zeros(1, N, dtype=torch.bool)
    keep[:, : N // 2] = True
    condition = of_clip(conditions(), 0)
    found = {
        tuple(networks.sample(condition, [0], known=(torch.full((1, N), code), keep))[0, N // 2 :].tolist())
        for code in range(CODES)
    }
    assert len(found) > 1


class Diary(SpecMaskGIT):
    """A backbone that writes down what it was asked and what it answered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tokens_seen: list[Tensor] = []
        self.masks_seen: list[Tensor] = []
        self.answers: list[Tensor] = []

    def embed(self, tokens: Tensor, masked: Tensor, prompt: Tensor, use_prompt: Tensor, **others: Any) -> Inputs:
        self.tokens_seen.append(tokens)
        self.masks_seen.append(masked)
        return super().embed(tokens, masked, prompt, use_prompt, **others)

    def forward(self, inputs: Inputs, residuals: Any = ()) -> Tensor:
        self.answers.append(super().forward(inputs, residuals))
        return self.answers[-1]


def diary(temperature: float, steps: int = 6) -> tuple[Diary, Tensor]:
    """One unguided sampling run of two clips, so that a step is one call of the network."""
    torch.manual_seed(0)
    sizes = BackboneSettings(kind="specmaskgit", depth=1, width=16, heads=2, mlp_width=32)
    backbone = Diary(sizes, grid=TokenGrid(ROWS, COLUMNS, 1), codes=CODES, prompt_width=5).eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    given = Sample(steps=steps, gumbel_temperature=temperature, batch_size=4, videos=0)
    condition = Condition(prompt=torch.randn(2, 5))
    plan = guidance_plan("text", [steps], 0.0)
    tokens = sample_tokens(backbone, None, condition, plan=plan, settings=given, seeds=[3, 4])
    return backbone, tokens


@pytest.mark.parametrize("temperature", [0.0, 9.0])
def test_unmasked_tokens_survive_and_the_schedule_is_kept(temperature):
    seen, final = diary(temperature)
    assert [int(masked[0].sum()) for masked in seen.masks_seen] == [N, *mask_counts(N, 6)[:-1]]
    for before, after in itertools.pairwise(seen.masks_seen):
        assert not (after & ~before).any()
        assert (before.sum(1) > after.sum(1)).all()
    for tokens, masked in zip(seen.tokens_seen, seen.masks_seen, strict=True):
        assert torch.equal(final[~masked], tokens[~masked])


def test_without_temperature_the_least_likely_tokens_go_back_under_the_mask():
    seen, _ = diary(0.0)
    for step in range(5):
        masked, again = seen.masks_seen[step], seen.masks_seen[step + 1]
        drawn = seen.tokens_seen[step + 1]
        confidence = seen.answers[step].log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
        for clip in range(2):
            worst_kept = confidence[clip][masked[clip] & ~again[clip]].min()
            assert confidence[clip][again[clip]].max() <= worst_kept


def test_temperature_mixes_the_order_in_which_tokens_settle():
    cold, _ = diary(0.0)
    hot, _ = diary(9.0)
    assert not torch.equal(cold.masks_seen[1], hot.masks_seen[1])


def test_tokens_are_drawn_in_proportion_to_their_probability(networks):
    """One step, no guidance: the Gumbel-max draw follows the softmax of the logits."""
    one = STEPS.model_copy(update={"steps": 1})
    condition = of_clip(conditions(), 0)
    count = 3000
    many = Condition(condition.prompt.expand(count, -1))
    tokens = networks.sample(many, list(range(count)), mode="text", scale=0.0, settings=one)
    with torch.inference_mode():
        x = networks.backbone.embed(
            torch.zeros(1, N, dtype=torch.int64),
            torch.ones(1, N, dtype=torch.bool),
            condition.prompt,
            torch.tensor([False]),
        )
        expected = networks.backbone(x).softmax(-1)[0]
    found = torch.nn.functional.one_hot(tokens, CODES).float().mean(0)
    assert (found - expected).abs().max() < 0.04


@pytest.mark.parametrize("missing", ["control", "sync", "semantic"])
def test_modes_with_video_say_what_is_missing(networks, missing):
    condition = conditions(1) if missing == "control" else replace(conditions(1), **{missing: None})
    control = None if missing == "control" else networks.control
    plan = guidance_plan("multi", STEPS.steps_of(1), 1.0)
    with pytest.raises(ValueError, match=r"cfg\.mode with video needs the control branch, sync and semantic"):
        sample_tokens(networks.backbone, control, condition, plan=plan, settings=STEPS, seeds=[0])


def test_modes_without_video_need_none(networks):
    prompt = Condition(prompt=conditions(2).prompt)
    plan = guidance_plan("text", STEPS.steps_of(1), 3.0)
    tokens = sample_tokens(networks.backbone, None, prompt, plan=plan, settings=STEPS, seeds=[0, 1])
    assert torch.equal(tokens, networks.sample(conditions(2), [0, 1], mode="text"))
