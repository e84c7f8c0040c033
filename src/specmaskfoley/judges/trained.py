"""The panel of judges that params.yaml names, with its weights."""

from __future__ import annotations

from pkgutil import resolve_name

import torch

from specmaskfoley.judges.panel import Panel
from specmaskfoley.settings import Params

PANELS = {
    "mini": "specmaskfoley.judges.mini_panel:MiniPanel",
    "paper": "specmaskfoley.judges.paper_panel:PaperPanel",
}
"""judges.kind -> the panel; only that one is imported."""


def load_panel(params: Params, device: torch.device) -> Panel:
    """The judges that `judges.kind` names: trained by stage `judges`, or official.

    Raises:
        ValueError: a file is missing, or was made with other settings.
    """
    panel: Panel = resolve_name(PANELS[params.judges.kind]).load(params)
    return panel.to(device).eval()
