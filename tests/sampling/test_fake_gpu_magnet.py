"""The fast sampler with MAGNeT on a GPU that has shapes and types alone: see test_fake_gpu.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import ROOT
from helpers.fake_gpu import CUDA, Watch, fake_gpu, on_gpu
from helpers.small_magnet import STEPS, N, conditions, networks, plan_elsewhere
from helpers.small_networks import Networks
from helpers.watched_graph import WatchedGraph, on_cuda
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException

from specmaskfoley.backbone.magnet.decoding import MagnetFastDecoding
from specmaskfoley.backbone.magnet.network import MagnetNetwork
from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.control.trained import build_control
from specmaskfoley.sampling import fast
from specmaskfoley.sampling.fast import Sampler
from specmaskfoley.sampling.guidance import TEXT_VIDEO, Condition, guidance_plan
from specmaskfoley.settings import GUIDANCE_MODES, Params

PARAMS = Params.load(ROOT / "params.yaml", "magnet")
CEILING = 700
"""Operations of a guided step with one clip."""


@pytest.fixture(autouse=True)
def _on_a_fake_gpu(monkeypatch):
    """What is planned before the loop has values; see `Plan`."""
    monkeypatch.setattr(fast, "_Graph", WatchedGraph)
    monkeypatch.setattr(
        MagnetNetwork,
        "fast_decoding",
        lambda self, how, seeds, known: plan_elsewhere(
            self, how, seeds, lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)
        ),
    )


def sample(
    networks: Networks,
    mode: str = "multi",
    steps: tuple[int, ...] = (3, 2, 1),
    clips: int = 2,
    words: tuple[int, float] = (0, 0.0),
    **changes: Any,
) -> Tensor:
    """Tokens of the fast sampler, which loses its networks to the fake GPU.

    Args:
        words: prompts of a clip, and the weight of what is not to be heard; see `conditions`.
    """
    prompts, negative = words
    with fake_gpu(), Watch(strict=False):
        sampler = Sampler(on_gpu(networks.backbone), on_gpu(networks.control), **changes)
        return sampler.sample(
            on_cuda(conditions(clips, prompts=prompts, negative=negative > 0)),
            plan=guidance_plan(mode, steps, 3.0, negative=negative),
            settings=STEPS.model_copy(update={"steps": steps}),
            seeds=list(range(clips)),
        )


@pytest.mark.parametrize(("steps", "clips"), [((1, 1, 1), 1), ((5, 3, 2), 1), ((4, 2, 2), 3)])
@pytest.mark.parametrize("mode", GUIDANCE_MODES)
@pytest.mark.parametrize("words", [(0, 0.0), (2, 1.0)])
def test_the_loop_of_a_graph(mode, steps, clips, words):
    tokens = sample(networks(), mode, steps, clips, words, precision="bfloat16")
    assert (tokens.shape, tokens.dtype, tokens.device) == ((clips, N), torch.int64, CUDA)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("arrangement", ["nonoverlap", "stride1"])
def test_both_arrangements(arrangement, precision):
    made = sample(networks(depth=3, control_depth=2, arrangement=arrangement), precision=precision)
    assert made.shape == (2, N)


def test_a_graph_is_of_the_shapes_and_steps_that_it_was_made_for():
    one, made = networks(), []
    with fake_gpu():
        sampler = Sampler(on_gpu(one.backbone), on_gpu(one.control))
        for steps, negative in [((2, 1, 1), 0.0), ((2, 1, 1), 1.0), ((2, 1, 1), 2.0), ((1, 2, 1), 1.0)]:
            sampler.sample(
                on_cuda(conditions(2, prompts=2, negative=negative > 0)),
                plan=guidance_plan("multi", steps, 3.0, negative=negative),
                settings=STEPS.model_copy(update={"steps": steps, "temperature": 1.0 + negative}),
                seeds=[0, 1],
            )
            made.append(next(reversed(sampler._graphs.values())))
    assert made[1] is made[2], "weights and temperatures are read by the graph"
    assert len(set(map(id, made))) == 3


def test_the_same_passes_of_other_levels_are_another_graph():
    one = networks()
    with fake_gpu():
        sampler = Sampler(on_gpu(one.backbone), on_gpu(one.control))
        for steps in ((2, 1, 1), (1, 2, 1)):
            settings = STEPS.model_copy(update={"steps": steps})
            sampler.sample(on_cuda(conditions(1)), plan=[{TEXT_VIDEO: 1.0}] * 4, settings=settings, seeds=[0])
    assert len(sampler._graphs) == 2


@pytest.mark.official
def test_a_guided_step_at_full_size_takes_few_operations():
    with torch.device("meta"):
        backbone = build_backbone(PARAMS)
        control = build_control(backbone, PARAMS)
    encoders, steps = PARAMS.encoders, (1, 1, 1, 1)
    with fake_gpu():
        sampler = Sampler(on_gpu(backbone), on_gpu(control))
        shapes = (1, *encoders.prompt.shape), (1, 240, encoders.sync.width), (1, encoders.semantic.width)
        condition = Condition(*(torch.empty(shape, device=CUDA) for shape in shapes))
        settings = PARAMS.sample.model_copy(update={"steps": steps})
        sampler.sample(condition, plan=guidance_plan("multi", steps, 3.0), settings=settings, seeds=[0])
    assert 0 < sum(WatchedGraph.kernels.values()) <= sum(steps) * CEILING


MISTAKES = {
    "a number is asked for": lambda logits: logits * logits.max().item(),
    "a number of the host": lambda logits: torch.where(logits > 0, logits, torch.tensor(0.0)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_where_host_and_device_meet(monkeypatch, name):
    decide = MagnetFastDecoding.decide
    monkeypatch.setattr(
        MagnetFastDecoding,
        "decide",
        lambda self, step, logits, *rest: decide(self, step, MISTAKES[name](logits), *rest),
    )
    with pytest.raises((AssertionError, DataDependentOutputException)):
        sample(networks())
