"""A training step of backbone or control branch on a GPU that has shapes and types alone."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from helpers.fake_gpu import Watch, fake_gpu, on_gpu
from specmaskfoley.backbone.objective import BackboneObjective
from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.control.objective import ControlObjective
from specmaskfoley.control.trained import build_control
from specmaskfoley.settings import Params
from specmaskfoley.training.loop import _adamw


class Read(list[int]):
    """Instead of a tensor of the host that the host reads: fake ones have no values."""

    def to(self, device: torch.device, **_: Any) -> Tensor:
        return torch.zeros(len(self), dtype=torch.int64, device=device)


def take_step(
    params: Params, kind: Literal["backbone", "control"], precision: str, device: str, level: int = 0
) -> None:
    """At full size, two clips, each of which has a prompt; the backward pass on the host alone: torch 2.11 asks the
    driver about a GPU there."""
    with torch.device("meta"):
        backbone = build_backbone(params)
        control = build_control(backbone, params)
    settings: dict[str, Any] = {"prompt_dropout": 0.1, "device": torch.device(device), "precision": precision}
    with fake_gpu(), Watch(strict=False):
        on_gpu(backbone).to(device), on_gpu(control).to(device)
        if kind == "backbone":
            objective = BackboneObjective(backbone, None, **settings)  # type: ignore[arg-type]
        else:
            objective = ControlObjective(backbone, control, None, **settings)  # type: ignore[arg-type]
        parameters = objective.groups()["model"]
        optimizer = _adamw(parameters, params.train_control.optim)
        loss, seen = objective.loss("model", batch(params, 2, level), 0, torch.Generator())
        assert {loss.device.type, *(value.device.type for value in seen.values())} == {device}
        if device == "cpu":
            loss.backward()
        else:
            for parameter in parameters:
                parameter.grad = torch.empty_like(parameter)
        assert all(p.grad is not None and p.grad.dtype == p.dtype == torch.float32 for p in parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def batch(params: Params, clips: int, level: int) -> dict[str, Any]:
    """What a training step reads, on the host."""
    grid, encoders = params.grid, params.encoders
    masked = torch.ones(clips, grid.size, dtype=torch.bool)
    return {
        "tokens": torch.zeros(clips, grid.rows, grid.columns, dtype=torch.int16),
        "prompt": torch.zeros(clips, *encoders.prompt.shape),
        "sync": torch.zeros(clips, len(params.sync_features_s), encoders.sync.width, dtype=torch.float16),
        "semantic_mean": torch.zeros(clips, encoders.semantic.width),
        "masked": masked,
        "use_prompt": masked[:, 0],
        "weight": torch.zeros(clips),
        "level": Read([level] * clips),
    }
