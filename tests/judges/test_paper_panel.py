"""The official judges as a panel."""

from __future__ import annotations

import pytest
import torch
from helpers import ROOT
from helpers.fake_gpu import CUDA, fake_gpu, on_gpu
from torch import Tensor

from specmaskfoley.judges import paper_panel
from specmaskfoley.settings import Params


def test_the_judges_hear_in_float32_whatever_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hear21passt")

    def shown(values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        found.append(values.dtype)
        return values

    found: list[torch.dtype] = []
    params = Params.load(ROOT / "params.yaml", "vggsound")
    run = params.run.model_copy(update={"precision": "bfloat16"})
    monkeypatch.setattr(paper_panel, "to_numpy", shown)
    monkeypatch.setattr(paper_panel.PaperPanel, "to_device", lambda panel, values: values)
    with torch.device("meta"):
        panel = paper_panel.PaperPanel(params.model_copy(update={"run": run})).eval()
    with fake_gpu():
        on_gpu(panel)
        panel.hear({sound: torch.empty(1, sound.num_samples, device=CUDA) for sound in panel.sounds})
    assert len(found) == 6
    assert set(found) == {torch.float32}
