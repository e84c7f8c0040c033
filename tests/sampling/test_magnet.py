"""The fast sampler with MAGNeT: the reference's tokens, and nothing that need not be done.

Shape letters: B clips, F codebooks, T columns, N = F * T tokens a clip.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import ROOT
from helpers.small_magnet import CODEBOOKS, CODES, COLUMNS, STEPS, N, conditions, networks, plan_elsewhere
from helpers.small_networks import of_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from specmaskfoley.backbone.magnet.decoding import MagnetFastDecoding
from specmaskfoley.backbone.magnet.network import MagnetNetwork
from specmaskfoley.backbone.role import Backbone, Inputs
from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.control.trained import build_control
from specmaskfoley.device import fast_bfloat16
from specmaskfoley.sampling.fast import Sampler
from specmaskfoley.sampling.guidance import TEXT_VIDEO, VIDEO, Condition, aligned_features, guidance_plan
from specmaskfoley.sampling.int8 import Int8Linear, supports_int8
from specmaskfoley.sampling.packed import PackedLinear
from specmaskfoley.settings import GUIDANCE_MODES, Params
from specmaskfoley.settings import Control as ControlSettings

CPU = torch.device("cpu")
needs_vnni = pytest.mark.skipif(not supports_int8(CPU), reason="this processor has no AVX512-VNNI")
NETWORKS = [
    networks(),
    networks(depth=1),
    networks(depth=3, control_depth=3),
    networks(depth=3, control_depth=2, arrangement="stride1"),
]
SAMPLERS = [Sampler(one.backbone, one.control, precision="float32") for one in NETWORKS]


def some_known(clips: int, seed: int, share: float) -> tuple[Tensor, Tensor]:
    """Tokens, and a mask that keeps another share of each clip, some codebooks of it as a whole."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.linspace(share, 1.0, clips)[:, None, None]
    keep = torch.rand(clips, CODEBOOKS, COLUMNS, generator=generator) < shares
    keep |= torch.rand(clips, CODEBOOKS, 1, generator=generator) < 0.2
    return torch.randint(CODES, (clips, N), generator=generator), keep.flatten(1)


# The same examples every time: rounding differs between the two, so that one clip in some ten thousand may too.
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    which=st.integers(0, 3),
    vectors=st.integers(0, 3),
    prompts=st.integers(0, 2),
    negative=st.none() | st.sampled_from([0.0, 0.5, 2.0]),
    mode=st.sampled_from(GUIDANCE_MODES),
    steps=st.integers(1, 9) | st.tuples(*[st.integers(1, 5)] * CODEBOOKS),
    scale=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    start=st.sampled_from([0.0, 0.4, 1.0]),
    ramp=st.sampled_from(["rising", "falling"]),
    clips=st.integers(1, 3),
    temperature=st.sampled_from([0.0, 1.0, 9.0]),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 1.0]),
    share=st.none() | st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_tokens_are_the_references(
    which, vectors, prompts, negative, mode, steps, scale, start, ramp, clips, temperature, top_p, share, seed
):
    changed = STEPS.model_copy(update={"steps": steps, "temperature": temperature, "top_p": top_p})
    known = None if share is None else some_known(clips, seed, share)
    seeds = list(range(seed, seed + clips))
    condition = conditions(clips, prompts=prompts, negative=negative is not None, vectors=vectors)
    expected = NETWORKS[which].sample(
        condition, seeds, mode=mode, scale=scale, start=start, negative=negative or 0.0, ramp=ramp, settings=changed,
        known=known,
    )  # fmt: skip
    plan = guidance_plan(mode, changed.steps_of(CODEBOOKS), scale, start, negative or 0.0, ramp)
    found = SAMPLERS[which].sample(condition, plan=plan, settings=changed, seeds=seeds, known=known)
    assert torch.equal(found, expected)
    assert 0 <= found.min() <= found.max() < CODES
    if known is not None:
        assert torch.equal(found[known[1]], known[0][known[1]])


def sample(
    sampler: Sampler, condition: Condition, mode: str = "multi", negative: float = 0.0, **changes: Any
) -> Tensor:
    plan = guidance_plan(mode, STEPS.steps_of(CODEBOOKS), 3.0, negative=negative)
    seeds = list(range(len(condition.prompt)))
    return sampler.sample(condition, **{"plan": plan, "settings": STEPS, "seeds": seeds, **changes})


@pytest.mark.parametrize("which", [0, 3])
@pytest.mark.parametrize("share", [None, 0.3])
def test_each_clip_has_words_and_tokens_of_its_own(which, share):
    together = conditions(3, prompts=2, negative=True)
    known = None if share is None else some_known(3, 5, share)
    tokens = sample(SAMPLERS[which], together, negative=1.0, known=known)
    for clip in range(3):
        own = None if known is None else (known[0][clip, None], known[1][clip, None])
        alone = sample(SAMPLERS[which], of_clip(together, clip), negative=1.0, seeds=[clip], known=own)
        assert torch.equal(alone[0], tokens[clip])


@pytest.mark.parametrize("mode", ["multi", "text"])
def test_a_part_over_all_of_a_sound_is_its_text(mode):
    plain, others = conditions(2), conditions(2, prompts=2)
    prompts = torch.cat([others.prompt, plain.prompt[:, None]], dim=1)
    parts = replace(plain, prompt=prompts, at=torch.full((2, N), 2))
    assert torch.equal(sample(SAMPLERS[0], parts, mode), sample(SAMPLERS[0], plain, mode))


def test_where_there_is_no_part_a_text_does_nothing():
    plain = conditions(2)
    parts = replace(plain, prompt=plain.prompt[:, None], at=torch.full((2, N), -1))
    found = [
        sample(SAMPLERS[0], condition, plan=[{one: 1.0}] * sum(STEPS.steps_of(CODEBOOKS)))
        for condition, one in ((parts, TEXT_VIDEO), (plain, VIDEO))
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("which", [0, 3])
def test_a_codebook_that_is_known_takes_no_step(which):
    known = torch.zeros(2, N, dtype=torch.int64), (torch.arange(N) // COLUMNS == 1).expand(2, -1)
    begun: list[int] = []
    sample(SAMPLERS[which], conditions(2), known=known, before_step=begun.append)
    assert begun == [0, 1, 2, 3, 4, 8, 9]


def test_words_video_and_what_is_not_to_be_heard_count():
    plain = conditions(2, negative=True)
    for mode, other, negative in (
        ("text", replace(plain, prompt=plain.prompt.flip(1)), 0.0),
        ("text", replace(plain, prompt=plain.prompt + 1.0), 0.0),
        ("no_text_video", replace(plain, sync=plain.sync.flip(1)), 0.0),
        ("multi", replace(plain, negative=-plain.negative), 1.0),
    ):
        same = torch.equal(sample(SAMPLERS[2], plain, mode, negative), sample(SAMPLERS[2], other, mode, negative))
        assert same == (mode == "text" and torch.equal(other.prompt, plain.prompt.flip(1))), "a prompt is a set"


# ---------------------------------------------------------------- the control branch


def batch(network: Backbone, level: int) -> tuple[Inputs, Condition]:
    condition = conditions(2)
    generator = torch.Generator().manual_seed(level)
    tokens = torch.randint(CODES, (2, N), generator=generator)
    masked = network.random_mask(2, level, generator)
    return network.embed(tokens, masked, condition.prompt, torch.tensor([True, True]), level=level), condition


@pytest.mark.parametrize("level", range(CODEBOOKS))
@torch.inference_mode()
def test_a_new_branch_leaves_the_logits_as_they_are_bit_for_bit(level):
    backbone = NETWORKS[2].backbone
    new = ControlBranch(backbone, ControlSettings(depth=2, aligner_mlp_width=16), sync_width=7, semantic_width=9).eval()
    inputs, condition = batch(backbone, level)
    residuals = new(inputs, aligned_features(new, condition))
    assert torch.equal(backbone(inputs, residuals), backbone(inputs))
    trained = NETWORKS[2].control
    assert not torch.allclose(
        backbone(inputs, trained(inputs, aligned_features(trained, condition))), backbone(inputs), atol=0.1
    )


@pytest.mark.parametrize("level", range(CODEBOOKS))
def test_every_number_of_the_branch_learns_at_every_level(level):
    one = networks(depth=3, control_depth=2)
    one.backbone.requires_grad_(False)
    inputs, condition = batch(one.backbone, level)
    one.backbone(inputs, one.control(inputs, aligned_features(one.control, condition))).square().sum().backward()
    for name, parameter in one.control.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.all(), name


# ---------------------------------------------------------------- nothing twice


def shapes_of(module: nn.Module) -> list[torch.Size]:
    """Of what goes into a module from now on."""
    shapes: list[torch.Size] = []
    module.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    return shapes


def test_what_need_not_be_computed_is_not():
    one = networks(depth=3, control_depth=2)
    sampler = Sampler(one.backbone, one.control, precision="float32")
    blocks, branch = one.backbone.blocks, one.control.blocks
    first, second, last, steered = map(shapes_of, (blocks[0], blocks[1], blocks[2].mlp, branch[0]))
    heads, aligner = [shapes_of(head) for head in one.backbone.heads], shapes_of(one.control.aligner)
    asking = [[shapes_of(block.cross.q) for block in part] for part in (blocks, branch)]
    keys = [shapes_of(block.cross.kv) for block in [*blocks, *branch]]
    sample(sampler, conditions(2))
    # Steps (5, 3, 2): the very first is one clip's, whatever the batch; guidance begins anew with each codebook.
    assert [shape[0] for shape in first] == [1, *[4] * 4, 2, *[4] * 2, 2, 4]
    assert [shape[0] for shape in second] == [1, *[6] * 4, 2, *[6] * 2, 2, 6]
    assert [shape[0] for shape in steered] == [4] * 7
    assert len(aligner) == 1
    assert [len(shapes) for shapes in keys] == [2] * 5, "once for the very first step, once for all others"
    for part in asking:  # of four rows or six that enter a block, the two with words
        for shapes in part:
            assert [shape[0] for shape in shapes] == [2] * 7
    masked = [[7, 6, 6, 3, 3], [7, 6, 3], [7, 3]]
    assert [shape[1] for shape in last] == [count for level in masked for count in level]
    for level, shapes in enumerate(heads):
        clips = [1 if level == 0 and step == 0 else 2 for step in range(len(masked[level]))]
        assert [shape[:2] for shape in shapes] == list(zip(clips, masked[level], strict=True))
    sample(sampler, conditions(2))
    assert len(first) == 10 + 9
    assert [len(shapes) for shapes in keys] == [3] * 5


def test_operations_are_those_that_are_needed():
    """Counted on the networks of a profile, and by hand."""
    params = Params.load(ROOT / "params.yaml", "mini_1d")
    encoders, grid, prompt = params.encoders, params.grid, params.encoders.prompt
    with torch.device("meta"):
        backbone = build_backbone(params)
        control = build_control(backbone, params)
        video = torch.empty(1, len(params.sync_features_s), encoders.sync.width)
        condition = Condition(torch.empty(1, *prompt.shape), video, torch.empty(1, encoders.semantic.width))
        with FlopCounterMode(display=False) as aligning:
            aligned_features(control, condition)
    few = params.sample.model_copy(update={"steps": 2})
    plan = guidance_plan("multi", few.steps_of(backbone.levels), 3.0)
    decoding = plan_elsewhere(backbone, few, [0], lambda tensor: tensor.to("meta"))
    sampler = Sampler(backbone, control, precision="float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MagnetNetwork, "fast_decoding", lambda *_: decoding)
        for _ in range(2):  # the very first step is taken once and for all
            with FlopCounterMode(display=False) as counted:
                sampler.sample(condition, plan=plan, settings=few, seeds=[0])

    sizes, columns, heard = params.backbone, grid.columns, 2  # a prompt's vector, and silence
    width, depth, steered = sizes.width, sizes.depth, params.control.depth

    def block(many: int) -> int:
        inside = width * width + 2 * width * sizes.mlp_width + 2 * columns * width
        return 2 * (3 * columns * width * width + many * inside)

    def hearing(many: int) -> int:
        return 2 * many * (2 * width * width + 2 * heard * width)

    by_hand = aligning.get_total_flops()
    by_hand += 2 * heard * (prompt.width * width + 2 * (depth + steered) * width * width)
    for step, weights in list(zip(decoding.steps, plan, strict=True))[1:]:
        passes, many = len(weights), step.count
        words, with_video = (2, 2) if passes == 3 else (1, 0)
        asking = words - 1
        by_hand += words * block(columns) + asking * hearing(columns)
        by_hand += (depth - 2) * (passes * block(columns) + asking * hearing(columns))
        by_hand += passes * block(many) + asking * hearing(many)
        by_hand += steered * (with_video * (block(columns) + 2 * columns * width**2) + asking * hearing(columns))
        by_hand += 2 * many * width * (passes + params.codec.codebook_size)
    assert counted.get_total_flops() == by_hand


# ---------------------------------------------------------------- other precisions


@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("int8", marks=needs_vnni)])
def test_other_precisions_hold_their_weights_once_and_keep_known_tokens(precision):
    one = networks()
    sampler = Sampler(one.backbone, one.control, precision="bfloat16", int8=precision == "int8")
    block = one.backbone.blocks[0]
    for linear in (block.attention.qkv, block.attention.out, block.cross.q, block.cross.kv, block.cross.out):
        if precision == "int8" or fast_bfloat16(CPU):
            assert isinstance(linear, Int8Linear if precision == "int8" else PackedLinear)
            assert linear.bias is None
            assert not list(linear.parameters())
        else:
            assert linear.weight.dtype == torch.bfloat16
    assert all(head.weight.dtype == torch.float32 for head in one.backbone.heads)
    tokens, keep = some_known(2, 0, 0.5)
    found = sample(sampler, conditions(2), known=(tokens, keep))
    assert torch.equal(found[keep], tokens[keep])
    assert 0 <= found.min() <= found.max() < CODES


def first_logits(sampler: Sampler, level: int) -> Tensor:
    """Of the first pass that decides a codebook, those before it being known."""
    known = torch.zeros(2, N, dtype=torch.int64), torch.arange(N).expand(2, -1) < level * COLUMNS
    seen: list[Tensor] = []
    decide = MagnetFastDecoding.decide

    def noted(self: MagnetFastDecoding, step: int, logits: Tensor, *rest: Any) -> Any:
        seen.append(logits)
        return decide(self, step, logits, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MagnetFastDecoding, "decide", noted)
        once = STEPS.model_copy(update={"steps": (1, 1, 1)})
        plan = guidance_plan("multi", (1, 1, 1), 1.0, negative=0.5)
        sample(sampler, conditions(2, prompts=2, negative=True), plan=plan, settings=once, known=known)
    assert len(seen) == CODEBOOKS - level
    return seen[0]


@pytest.mark.parametrize(("precision", "limit"), [("bfloat16", 0.03), pytest.param("int8", 0.06, marks=needs_vnni)])
@pytest.mark.parametrize("level", range(CODEBOOKS))
def test_other_precisions_come_close(precision, limit, level):
    one = networks(depth=3, control_depth=3)
    sampler = Sampler(one.backbone, one.control, precision="bfloat16", int8=precision == "int8")
    expected, found = first_logits(SAMPLERS[2], level), first_logits(sampler, level)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() < limit * expected.norm()
