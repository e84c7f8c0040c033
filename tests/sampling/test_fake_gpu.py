"""The samplers on a GPU that has shapes and types alone: what a CUDA graph holds never waits for the host.

Shape letters: N tokens a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import ROOT
from helpers.fake_gpu import CUDA, Watch, fake_gpu, on_gpu
from helpers.small_networks import STEPS, N, Networks, conditions
from helpers.watched_graph import WatchedGraph, on_cuda
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from specmaskfoley.backbone.specmaskgit import grouped
from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.control.trained import build_control
from specmaskfoley.sampling import fast
from specmaskfoley.sampling.fast import Sampler
from specmaskfoley.sampling.guidance import Condition, guidance_plan
from specmaskfoley.sampling.reference import sample_tokens
from specmaskfoley.settings import GUIDANCE_MODES, Params

PARAMS = Params.load(ROOT / "params.yaml", "vggsound")
TWO = STEPS.model_copy(update={"steps": 2})
CEILING = 260
"""Operations of a guided step with one clip."""


def sample(
    networks: Networks,
    mode: str = "multi",
    steps: int = 2,
    clips: int = 2,
    words: tuple[int, float] = (0, 0.0),
    **changes: Any,
) -> Tensor:
    """Tokens of the fast sampler, which loses its networks to the fake GPU.

    Args:
        words: prompts of a clip, and the weight of what is not to be heard; see `conditions`.
    """
    prompts, negative = words
    with fake_gpu(), pytest.MonkeyPatch.context() as patch, Watch(strict=False):
        patch.setattr(fast, "_Graph", WatchedGraph)
        sampler = Sampler(on_gpu(networks.backbone), on_gpu(networks.control), **changes)
        return sampler.sample(
            on_cuda(conditions(clips, prompts=prompts, negative=negative > 0)),
            plan=guidance_plan(mode, [steps], 3.0, negative=negative),
            settings=STEPS.model_copy(update={"steps": steps}),
            seeds=list(range(clips)),
        )


@pytest.mark.parametrize(("steps", "clips"), [(1, 1), (1, 3), (12, 1), (16, 3)])
@pytest.mark.parametrize("mode", GUIDANCE_MODES)
@pytest.mark.parametrize("words", [(0, 0.0), (2, 1.0)])
def test_the_loop_of_a_graph(mode, steps, clips, words):
    tokens = sample(Networks(), mode, steps, clips, words, precision="bfloat16")
    assert (tokens.shape, tokens.dtype, tokens.device) == ((clips, N), torch.int64, CUDA)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("few", [0, 10_000])
def test_grouped_and_block_by_block(monkeypatch, few, precision):
    monkeypatch.setattr(fast, "_FEW_ROWS", few)
    assert sample(Networks(depth=3, control_depth=2), precision=precision).shape == (2, N)
    assert bool(WatchedGraph.kernels["baddbmm"]) == bool(few)


def test_a_graph_is_of_the_shapes_that_it_was_made_for():
    networks, made = Networks(), []
    with fake_gpu(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "_Graph", WatchedGraph)
        sampler = Sampler(on_gpu(networks.backbone), on_gpu(networks.control))
        for clips, prompts, negative in [(2, 0, 0.0), (2, 1, 0.0), (2, 2, 0.0), (2, 2, 1.0), (2, 2, 2.0), (2, 3, 1.0)]:
            sampler.sample(
                on_cuda(conditions(clips, prompts=prompts, negative=negative > 0)),
                plan=guidance_plan("multi", [2], 3.0, negative=negative), settings=TWO, seeds=list(range(clips)),
            )  # fmt: skip
            made.append(next(reversed(sampler._graphs.values())))
    assert made[3] is made[4], "weights are read by the graph"
    assert len(set(map(id, made))) == 5


def test_the_loop_of_clips_with_different_known_tokens(monkeypatch):
    monkeypatch.setattr(WatchedGraph, "uniform", False)
    assert sample(Networks(), steps=3, precision="bfloat16").shape == (2, N)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("mode", GUIDANCE_MODES)
def test_the_reference(mode, precision):
    networks = Networks()
    with fake_gpu(), Watch(strict=False):
        tokens = sample_tokens(
            on_gpu(networks.backbone), on_gpu(networks.control), on_cuda(conditions(2)),
            plan=guidance_plan(mode, STEPS.steps_of(1), 3.0), settings=STEPS, seeds=[0, 1], precision=precision,
        )  # fmt: skip
    assert (tokens.shape, tokens.device) == ((2, N), CUDA)


def test_a_guided_step_at_full_size_takes_few_operations():
    with torch.device("meta"):
        backbone = build_backbone(PARAMS)
        control = build_control(backbone, PARAMS)
    encoders, taken = PARAMS.encoders, []
    with fake_gpu(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "_Graph", WatchedGraph)
        sampler = Sampler(on_gpu(backbone), on_gpu(control))
        shapes = (1, encoders.prompt.width), (1, 240, encoders.sync.width), (1, encoders.semantic.width)
        condition = Condition(*(torch.empty(shape, device=CUDA) for shape in shapes))
        for steps in (2, 3):
            settings = PARAMS.sample.model_copy(update={"steps": steps})
            sampler.sample(condition, plan=guidance_plan("multi", [steps], 3.0), settings=settings, seeds=[0])
            taken.append(sum(WatchedGraph.kernels.values()))
    assert 0 < taken[1] - taken[0] <= CEILING


def test_a_graph_is_of_the_networks_device(monkeypatch):
    current = ["cuda:0"]
    log: list[Any] = []

    @contextmanager
    def device(wanted: torch.device) -> Iterator[None]:
        current.append(str(wanted))
        yield
        current.pop()

    @contextmanager
    def noted(*what: Any) -> Iterator[None]:
        log.append(("capture", current[-1]))
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "graph", noted)
    monkeypatch.setattr(torch.cuda, "stream", noted)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(
        torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: log.append(("replay", current[-1])))
    )
    networks, second = Networks(), torch.device("cuda", 1)
    with fake_gpu():
        sampler = Sampler(on_gpu(networks.backbone, second), on_gpu(networks.control, second))
        sampler.sample(on_cuda(conditions(1), second), plan=guidance_plan("multi", [2], 3.0), settings=TWO, seeds=[0])
    assert log == [("capture", "cuda:1"), ("capture", "cuda:1"), ("replay", "cuda:1")]


# ---------------------------------------------------------------- mistakes that the watch must find


def in_logits(spoil: Callable[[Tensor, Tensor], Tensor]) -> Callable[[pytest.MonkeyPatch, Networks], None]:
    """A mistake in what the loop makes of the logits (B, m, K) of the positions `at` (B, m)."""

    def apply(patch: pytest.MonkeyPatch, networks: Networks) -> None:
        plain = Sampler._logits

        def spoilt(self, given, tokens, at, *rest):  # type: ignore[no-untyped-def]
            return spoil(plain(self, given, tokens, at, *rest), at)

        patch.setattr(Sampler, "_logits", spoilt)

    return apply


def half_keys(patch: pytest.MonkeyPatch, networks: Networks) -> None:
    attend = grouped.attend
    patch.setattr(grouped, "attend", lambda q, k, v: attend(q, k.to(torch.float16), v))


def half_head(patch: pytest.MonkeyPatch, networks: Networks) -> None:
    networks.backbone.to_codes.to(torch.bfloat16)


def half_convolution(patch: pytest.MonkeyPatch, networks: Networks) -> None:
    next(part for part in networks.control.modules() if isinstance(part, nn.Conv1d)).to(torch.bfloat16)


def half_residual(patch: pytest.MonkeyPatch, networks: Networks) -> None:
    layer = grouped._layer
    patch.setattr(grouped, "_layer", lambda *given: (made := layer(*given))._replace(down=made.down.to(torch.float16)))


MEETING = {
    "item": lambda logits, at: logits * logits.max().item(),
    "float": lambda logits, at: logits / float(logits.std()),
    "bool": lambda logits, at: logits if (logits > 0).any() else -logits,
    "tolist": lambda logits, at: logits[:, : max(at[:, 0].tolist()) + logits.shape[1]],
    "boolean index": lambda logits, at: logits - logits[logits > 0].mean(),
    "nonzero": lambda logits, at: logits + 0.0 * at.nonzero().sum(),
    "masked_select": lambda logits, at: logits - logits.masked_select(logits > 0).mean(),
    "unique": lambda logits, at: logits + 0.0 * at.unique().sum(),
    "arange of the host": lambda logits, at: logits + torch.arange(logits.shape[-1]).to(at.device),
    "noise of the host": lambda logits, at: logits + torch.rand(logits.shape).to(at.device),
    "a list": lambda logits, at: logits * torch.tensor([2.0], device=at.device),
    "a number of the host": lambda logits, at: torch.where(logits > 0, logits, torch.tensor(0.0)),
    "to the host and back": lambda logits, at: logits.cpu().to(at.device),
    "index of a list": lambda logits, at: logits[:, :, list(range(logits.shape[-1]))],
}
UNEQUAL = {
    "linear": half_head,
    "convolution": half_convolution,
    "attention": half_keys,
    "product that adds": half_residual,
    "matmul": in_logits(lambda logits, at: logits @ torch.eye(logits.shape[-1], device=at.device).half()),
}


@pytest.mark.parametrize("name", MEETING)
def test_where_host_and_device_meet(monkeypatch, name):
    networks = Networks()
    in_logits(MEETING[name])(monkeypatch, networks)
    # Nothing is wrong with it on a CPU, so no other test would find it.
    sampler = Sampler(networks.backbone, networks.control, precision="float32")
    sampler.sample(conditions(1), plan=guidance_plan("multi", [2], 3.0), settings=TWO, seeds=[0])
    with pytest.raises((AssertionError, DataDependentOutputException, DynamicOutputShapeException)):
        sample(networks, precision="float32")


@pytest.mark.parametrize("name", UNEQUAL)
def test_products_of_unequal_types(monkeypatch, name):
    networks = Networks()
    UNEQUAL[name](monkeypatch, networks)
    with pytest.raises(AssertionError, match="of unequal types"):
        sample(networks, precision="float32")
