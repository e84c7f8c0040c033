"""The official judges as a panel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import ROOT
from helpers.fake_gpu import CUDA, fake_gpu, on_gpu
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from specmaskfoley.judges import paper_panel
from specmaskfoley.settings import Params


class Types(TorchDispatchMode):
    """Collects the types of the numbers that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.found |= {one.dtype for one in tree_leaves(result) if isinstance(one, Tensor) and one.is_floating_point()}
        return result


def test_the_judges_hear_in_float32_whatever_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hear21passt")
    params = Params.load(ROOT / "params.yaml", "vggsound")
    run = params.run.model_copy(update={"precision": "bfloat16"})
    monkeypatch.setattr(paper_panel, "to_numpy", lambda values, dtype=torch.float32: values)  # fake ones have none
    monkeypatch.setattr(paper_panel.PaperPanel, "to_device", lambda panel, values: values)
    with torch.device("meta"):
        panel = paper_panel.PaperPanel(params.model_copy(update={"run": run})).eval()
    with fake_gpu():
        on_gpu(panel)
        with Types() as types:
            panel.hear({sound: torch.empty(1, sound.num_samples, device=CUDA) for sound in panel.sounds})
    assert torch.float32 in types.found
    assert torch.bfloat16 not in types.found
