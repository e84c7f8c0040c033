"""What the trainings of a profile take: operations and memory of a step, counted on networks that take no memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.codec.discriminator import Discriminator
from specmaskfoley.codec.trained import build_codec
from specmaskfoley.control.trained import build_control
from specmaskfoley.settings import Params, Training
from specmaskfoley.storage.checkpoint import KEPT

_CLIPS = 4
"""Of the step that is counted; a larger batch is proportional."""

_SINGLE, _HALF = 4, 2
"""Bytes of a number."""

_HALF_ACTIVATIONS = 0.6
"""What autocast in half precision keeps for the backward pass, as a share of the same in float32: 0.59 for blocks of
the backbone, 0.50 for the codec, by the tensors that torch saves."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network and its training.

    Attributes:
        parameters: how many it has, without the frozen ones it is trained with.
        frozen: parameters of these.
        recipe: None: official, not trained.
        clip_flops: operations of a training step, forward and backward, divided by its clips.
        clip_bytes: what a step keeps for its backward pass in float32, divided by its clips.
    """

    parameters: int
    frozen: int = 0
    recipe: Training | None = None
    clip_flops: float = 0.0
    clip_bytes: float = 0.0

    @property
    def flops(self) -> float:
        """Of the whole training."""
        return self.clip_flops * self.recipe.batch_size * self.recipe.steps if self.recipe else 0.0

    @property
    def checkpoint_bytes(self) -> int:
        """Of all states that are kept at a time: weights and two moments of Adam."""
        return (KEPT + 1) * 3 * _SINGLE * self.parameters if self.recipe else 0

    def memory(self, clips: int, *, half: bool) -> tuple[int, float]:
        """Bytes of a step of so many clips: weights, gradients and Adam; then what is kept for the backward pass."""
        fixed = 4 * _SINGLE * self.parameters + (_HALF if half else _SINGLE) * self.frozen
        return fixed, clips * self.clip_bytes * (_HALF_ACTIVATIONS if half else 1.0)


def count_networks(params: Params) -> dict[str, Network]:
    """Codec, backbone and control branch of a profile, in the order in which they are trained."""
    grid, encoders = params.grid, params.encoders
    with torch.device("meta"):
        codec, backbone = build_codec(params), build_backbone(params)
        control, judge = build_control(backbone, params), Discriminator()
        tokens = torch.zeros(_CLIPS, grid.size, dtype=torch.int64)
        prompt, yes = torch.zeros(_CLIPS, *encoders.prompt.shape), torch.zeros(_CLIPS, dtype=torch.bool)
        sync = torch.zeros(_CLIPS, len(params.sync_features_s), encoders.sync.width)
        semantic = torch.zeros(_CLIPS, encoders.semantic.width)

        def codec_step() -> Tensor:
            assert params.train_codec is not None
            columns = min(params.train_codec.crop_columns, grid.columns)
            decoded = codec.decode_latents(codec.encode_latents(codec.example(_CLIPS, grid.rows, columns)))
            # The discriminator hears the sound once for the codec, and both sounds once to learn.
            heard = 3 if params.train_codec.adversarial_weight else 0
            return torch.stack([decoded.sum(), *(judge(decoded).sum() for _ in range(heard))])

        def backbone_step() -> Tensor:
            return backbone(backbone.embed(tokens, tokens.bool(), prompt, yes))  # type: ignore[no-any-return]

        def control_step() -> Tensor:
            inputs = backbone.embed(tokens, tokens.bool(), prompt, yes)
            return backbone(inputs, control(inputs, control.align(sync, semantic)))  # type: ignore[no-any-return]

        networks = {}
        if params.train_codec is None:
            networks["codec"] = Network(parameters=_count(codec))
        else:
            networks["codec"] = _counted(codec, params.train_codec.optim, codec_step)
        trained = params.train_backbone
        networks["backbone"] = _counted(backbone, trained.optim if trained else None, backbone_step)
        backbone.requires_grad_(False)
        frozen = (backbone, networks["backbone"])
        networks["control"] = _counted(control, params.train_control.optim, control_step, frozen)
    return networks


def _counted(
    network: nn.Module,
    recipe: Training | None,
    step: Callable[[], Tensor],
    frozen: tuple[nn.Module, Network] | None = None,
) -> Network:
    """Args: step: the forward pass; frozen: a network in it that does not learn, and what is known of its training."""
    weights = [*network.parameters(), *(frozen[0].parameters() if frozen else ())]
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in saved}
    for value in weights:
        storages.pop(value.untyped_storage()._cdata, None)
    # Backward is a product each for the gradients of inputs and of weights, of which a frozen network has the first.
    flops = 3 * counter.get_total_flops() / _CLIPS - (frozen[1].clip_flops / 3 if frozen else 0)
    return Network(
        parameters=_count(network),
        frozen=frozen[1].parameters if frozen else 0,
        recipe=recipe,
        clip_flops=flops,
        clip_bytes=sum(storages.values()) / _CLIPS,
    )


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
