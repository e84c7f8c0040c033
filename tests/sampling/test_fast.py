"""The fast sampler gives the reference's tokens, and does not do what it need not.

Shape letters: N tokens a clip.
"""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from helpers.small_networks import CODES, STEPS, N, Networks, conditions, of_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from specmaskfoley import device
from specmaskfoley.backbone.specmaskgit.noise import draw_noise
from specmaskfoley.backbone.specmaskgit.schedule import mask_counts
from specmaskfoley.device import fast_bfloat16
from specmaskfoley.sampling import fast, packed
from specmaskfoley.sampling.fast import Sampler
from specmaskfoley.sampling.guidance import TEXT_VIDEO, VIDEO, Condition, guidance_plan
from specmaskfoley.sampling.int8 import Int8Linear, supports_int8
from specmaskfoley.sampling.packed import PackedLinear, pack
from specmaskfoley.settings import GUIDANCE_MODES

CPU = torch.device("cpu")
needs_bfloat16 = pytest.mark.skipif(not fast_bfloat16(CPU), reason="this processor has no bfloat16 instructions")
needs_vnni = pytest.mark.skipif(not supports_int8(CPU), reason="this processor has no AVX512-VNNI")
NETWORKS = [Networks(), Networks(depth=1), Networks(depth=3, control_depth=3)]
SAMPLERS = [Sampler(networks.backbone, networks.control, precision="float32") for networks in NETWORKS]
with pytest.MonkeyPatch.context() as as_on_a_gpu:
    as_on_a_gpu.setattr(fast, "_groups", lambda device: True)
    SAMPLERS += [Sampler(networks.backbone, networks.control, precision="float32") for networks in NETWORKS]


def random_known(clips: int, seed: int, share: float) -> tuple[Tensor, Tensor]:
    """Tokens and a mask that keeps another share of each clip."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.linspace(share, 1.0, clips)[:, None]
    return torch.randint(CODES, (clips, N), generator=generator), torch.rand(clips, N, generator=generator) < shares


# The same examples every time: rounding differs between the two, so that one clip in some ten thousand may too.
@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    which=st.integers(0, 5),
    prompts=st.integers(0, 3),
    negative=st.none() | st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    mode=st.sampled_from(GUIDANCE_MODES),
    steps=st.integers(1, 20),
    scale=st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0]),
    start=st.sampled_from([0.0, 0.4, 1.0]),
    clips=st.integers(1, 3),
    temperature=st.sampled_from([0.0, 9.0]),
    schedule=st.sampled_from(["cosine", "linear"]),
    share=st.none() | st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_tokens_are_the_references(
    which, prompts, negative, mode, steps, scale, start, clips, temperature, schedule, share, seed
):
    changed = STEPS.model_copy(update={"steps": steps, "gumbel_temperature": temperature, "schedule": schedule})
    known = None if share is None else random_known(clips, seed, share)
    seeds = list(range(seed, seed + clips))
    condition, weight = conditions(clips, prompts=prompts, negative=negative is not None), negative or 0.0
    expected = NETWORKS[which % len(NETWORKS)].sample(
        condition, seeds, mode=mode, scale=scale, start=start, negative=weight, settings=changed, known=known
    )
    plan = guidance_plan(mode, [steps], scale, start, weight)
    found = SAMPLERS[which].sample(condition, plan=plan, settings=changed, seeds=seeds, known=known)
    assert torch.equal(found, expected)


def worded(sampler: Sampler, condition: Condition, mode: str = "multi", negative: float = 0.0) -> Tensor:
    plan = guidance_plan(mode, STEPS.steps_of(1), 3.0, negative=negative)
    return sampler.sample(condition, plan=plan, settings=STEPS, seeds=list(range(len(condition.prompt))))


@pytest.mark.parametrize("which", [0, 3])
@pytest.mark.parametrize("mode", ["multi", "text"])
@pytest.mark.parametrize("others", [0, 2])
def test_a_part_over_all_of_a_sound_is_its_text(which, mode, others):
    plain = conditions(2)
    prompts = plain.prompt[:, None]
    if others:
        prompts = torch.cat([conditions(2, prompts=others).prompt, prompts], dim=1)
    parts = replace(plain, prompt=prompts, at=torch.full((2, N), others))
    assert torch.equal(worded(SAMPLERS[which], parts, mode), worded(SAMPLERS[which], plain, mode))


@pytest.mark.parametrize("which", [0, 3])
def test_where_there_is_no_part_a_text_does_nothing(which):
    plain = conditions(2)
    parts = replace(plain, prompt=plain.prompt[:, None], at=torch.full((2, N), -1))
    found = [
        SAMPLERS[which].sample(condition, plan=[{one: 1.0}] * 6, settings=STEPS, seeds=[0, 1])
        for condition, one in ((parts, TEXT_VIDEO), (plain, VIDEO))
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("which", [0, 3])
def test_each_clip_has_words_of_its_own(which):
    together = conditions(3, prompts=2, negative=True)
    for clip, tokens in enumerate(worded(SAMPLERS[which], together, negative=1.0)):
        alone = SAMPLERS[which].sample(
            of_clip(together, clip), plan=guidance_plan("multi", STEPS.steps_of(1), 3.0, negative=1.0), settings=STEPS,
            seeds=[clip],
        )  # fmt: skip
        assert torch.equal(alone[0], tokens)


def test_what_is_not_to_be_heard_must_be_said():
    with pytest.raises(ValueError, match="needs the embedding of what is not to be heard"):
        worded(SAMPLERS[0], conditions(1), negative=1.0)
    assert worded(SAMPLERS[0], conditions(1), negative=0.0).shape == (1, N), "without weight it is not needed"


def sample(sampler: Sampler, clips: int = 2, mode: str = "multi", scale: float = 3.0) -> Tensor:
    return sampler.sample(
        conditions(clips), plan=guidance_plan(mode, STEPS.steps_of(1), scale), settings=STEPS, seeds=list(range(clips))
    )


def test_sampling_can_be_ended_at_every_step():
    begun: list[int] = []

    def before_step(step: int) -> None:
        begun.append(step)
        if step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        SAMPLERS[0].sample(
            conditions(1), plan=guidance_plan("multi", [6], 3.0), settings=STEPS, seeds=[0], before_step=before_step
        )
    assert begun == [0, 1, 2, 3]


def test_each_clip_has_gumbel_noise_of_its_own():
    draw, order = draw_noise([3, 8], 40, N, CODES, CPU)
    assert draw.shape == (40, 2, N, CODES)
    assert order.shape == (40, 2, N)
    for clip, seed in enumerate([3, 8]):
        alone = draw_noise([seed], 40, N, CODES, CPU)
        assert torch.equal(draw[:, [clip]], alone[0])
        assert torch.equal(order[:, [clip]], alone[1])
    assert not torch.equal(draw[:, 0], draw[:, 1])
    for noise in (draw, order):
        assert noise.isfinite().all()
        error = 6 * noise.numel() ** -0.5
        assert noise.mean() == pytest.approx(0.5772, abs=1.3 * error)  # Euler's constant; deviation pi / sqrt(6)
        assert (noise < 0).float().mean() == pytest.approx(math.exp(-1), abs=0.5 * error)


def test_a_clip_has_the_same_tokens_alone_and_in_a_batch():
    together = sample(SAMPLERS[0], 3)
    plan = guidance_plan("multi", STEPS.steps_of(1), 3.0)
    for clip in range(3):
        alone = SAMPLERS[0].sample(of_clip(conditions(3), clip), plan=plan, settings=STEPS, seeds=[clip])
        assert torch.equal(alone[0], together[clip])


def inputs_of(module: nn.Module) -> list[torch.Size]:
    """Shapes of what goes into a module from now on."""
    shapes: list[torch.Size] = []
    module.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    return shapes


def test_what_need_not_be_computed_is_not():
    networks = Networks(depth=3, control_depth=2)
    sampler = Sampler(networks.backbone, networks.control, precision="float32")
    first, second = inputs_of(networks.backbone.blocks[0]), inputs_of(networks.backbone.blocks[1])
    last, head = inputs_of(networks.backbone.blocks[2].mlp), inputs_of(networks.backbone.to_codes)
    branch, aligner = inputs_of(networks.control.blocks[0]), inputs_of(networks.control.aligner)
    masked = [N, *mask_counts(N, 6)[:-1]]
    sample(sampler)
    # The first step's pass is one clip's, whatever the batch; later video and unconditional rows enter as one.
    assert [shape[0] for shape in first] == [1, *[4] * 5]
    assert [shape[0] for shape in second] == [1, *[6] * 5]
    assert [shape[0] for shape in branch] == [4] * 5
    assert len(aligner) == 1
    assert [shape[:2] for shape in last] == [(1, N), *((6, count) for count in masked[1:])]
    assert [shape[:2] for shape in head] == [(1, N), *((2, count) for count in masked[1:])]
    sample(sampler)
    assert [shape[0] for shape in first] == [1, *[4] * 10]


def test_the_loop_asks_the_host_for_nothing():
    class Watch(TorchDispatchMode):
        seen: list[str] = []  # noqa: RUF012

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            self.seen.append(str(function))
            return function(*args, **(kwargs or {}))

    sampler = SAMPLERS[0]
    decode = sampler._decode

    def watched(*args):  # type: ignore[no-untyped-def]
        with Watch():
            return decode(*args)

    sampler._decode = watched  # type: ignore[method-assign]
    try:
        sample(sampler)
    finally:
        del sampler._decode  # type: ignore[attr-defined]
    assert any("argmax" in name for name in Watch.seen)
    assert not [name for name in Watch.seen if "_local_scalar_dense" in name or "nonzero" in name]


@pytest.mark.parametrize("warn_only", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_sampling_takes_no_deterministic_algorithms(warn_only, fails):
    seen: list[bool] = []

    def before_step(step: int) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        if fails and step == 2:
            raise InterruptedError

    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        with pytest.raises(InterruptedError) if fails else nullcontext():
            SAMPLERS[0].sample(
                conditions(1), plan=guidance_plan("multi", [6], 3.0), settings=STEPS, seeds=[0], before_step=before_step
            )
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == [False] * (3 if fails else 6)


def test_grouped_networks_hold_their_weights_once(monkeypatch):
    monkeypatch.setattr(fast, "_groups", lambda device: True)
    networks = Networks()
    sampler = Sampler(networks.backbone, networks.control, precision="bfloat16")
    assert sampler._grouped is not None
    owned = {part.data_ptr() for layer in sampler._grouped.layers for part in layer if part is not None}
    for block in [*networks.backbone.blocks[:1], *networks.control.blocks]:
        for linear in (block.attention.qkv, block.attention.out, block.mlp[0], block.mlp[2]):
            assert linear.weight.untyped_storage().data_ptr() in owned
    grouped = sample(sampler)
    monkeypatch.setattr(fast, "_FEW_ROWS", 0)
    assert (sample(sampler) == grouped).float().mean() > 0.5  # block by block with the same weights, rounded elsewhere


def test_grouped_without_a_branch(monkeypatch):
    monkeypatch.setattr(fast, "_groups", lambda device: True)
    sampler = Sampler(NETWORKS[0].backbone, None, precision="float32")
    assert torch.equal(sample(sampler, mode="text"), NETWORKS[0].sample(conditions(2), [0, 1], mode="text"))


@pytest.mark.parametrize("int8", [False, pytest.param(True, marks=needs_vnni)])
def test_other_precisions_hold_their_weights_once_and_keep_known_tokens(int8):
    networks = Networks()
    sampler = Sampler(networks.backbone, networks.control, precision="bfloat16", int8=int8)
    linear = networks.backbone.blocks[0].attention.qkv
    if int8 or fast_bfloat16(CPU):
        assert isinstance(linear, Int8Linear if int8 else PackedLinear)
        assert not list(linear.parameters())
    else:
        assert linear.weight.dtype == torch.bfloat16
    assert networks.backbone.to_codes.weight.dtype == torch.float32
    tokens, keep = random_known(2, 0, 0.5)
    found = sampler.sample(
        conditions(2), plan=guidance_plan("multi", [6], 3.0), settings=STEPS, seeds=[0, 1], known=(tokens, keep)
    )
    assert torch.equal(found[keep], tokens[keep])
    assert 0 <= found.min() <= found.max() < CODES


@needs_vnni
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_comes_close(dtype):
    torch.manual_seed(0)
    linear = nn.Linear(64, 48)
    x = torch.randn(3, 7, 64).to(dtype)
    expected, found = linear(x.float()), Int8Linear(linear)(x)
    assert found.shape == expected.shape
    assert found.dtype == dtype
    assert (found.float() - expected).abs().mean() < 0.02 * expected.abs().mean()


@needs_vnni
@pytest.mark.parametrize("x", [torch.zeros(2, 8), torch.full((2, 8), 3.0), torch.full((2, 8), -3.0)])
def test_int8_of_inputs_without_spread(x):
    torch.manual_seed(0)
    linear = nn.Linear(8, 4)
    torch.testing.assert_close(Int8Linear(linear)(x), linear(x), atol=0.05, rtol=0.05)


def test_int8_without_the_instructions_names_the_setting(monkeypatch):
    monkeypatch.setattr(fast, "supports_int8", lambda device: False)
    networks = Networks()
    with pytest.raises(ValueError, match=r"sample\.int8=true needs a CPU with AVX512-VNNI"):
        Sampler(networks.backbone, networks.control, int8=True)


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_bfloat16), False])
def test_auto_means_bfloat16_where_it_pays(monkeypatch, native):
    for module in (device, packed):
        monkeypatch.setattr(module, "fast_bfloat16", lambda _: native)
    networks = Networks()
    assert Sampler(networks.backbone, networks.control).dtype == (torch.bfloat16 if native else torch.float32)
    linear = networks.backbone.blocks[0].attention.qkv
    assert isinstance(linear, PackedLinear if native else nn.Linear)


def test_without_native_bfloat16_tokens_are_those_of_float32(monkeypatch):
    for module in (device, packed):
        monkeypatch.setattr(module, "fast_bfloat16", lambda _: False)
    networks = Networks()
    assert torch.equal(sample(Sampler(networks.backbone, networks.control)), sample(SAMPLERS[0]))


@needs_bfloat16
@pytest.mark.parametrize("gelu", [False, True])
def test_packed_products_are_bfloat16s(gelu):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 48), nn.GELU() if gelu else nn.Identity(), nn.Linear(48, 16)).bfloat16()
    found = copy.deepcopy(plain)
    pack(found)
    x = torch.randn(3, 7, 64).bfloat16()
    with torch.inference_mode():
        expected, made = plain.float()(x.float()), found(x)
    assert [type(part) for part in found] == [PackedLinear, nn.Identity, PackedLinear]
    assert made.shape == expected.shape
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), expected, atol=0.01, rtol=0.02)


def test_missing_video_is_told():
    networks = Networks()
    sampler = Sampler(networks.backbone, None)
    with pytest.raises(ValueError, match="needs the control branch"):
        sample(sampler, mode="multi")
    assert sample(sampler, mode="text").shape == (2, N)
