"""Which implementation fills a role, and that no other one is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pkgutil import resolve_name

import pytest
from helpers import ROOT

from specmaskfoley.encoders.trained import ROLES
from specmaskfoley.judges.trained import PANELS
from specmaskfoley.media.mel import MELS
from specmaskfoley.vocoders.trained import VOCODERS

MINI = """
import sys
from pkgutil import resolve_name
import specmaskfoley.encoders.features, specmaskfoley.encoders.objectives, specmaskfoley.judges.objectives
from specmaskfoley.encoders.trained import ROLES, build_encoder
from specmaskfoley.judges.trained import PANELS
from specmaskfoley.settings import Params
params = Params.load("params.yaml")
for role in ROLES.values():
    build_encoder(role, params)
resolve_name(PANELS[params.judges.kind])
print(*sorted(name for name in sys.modules if name.startswith("specmaskfoley.")))
"""
OFFICIAL = {
    *(f"specmaskfoley.encoders.{name}" for name in ("synchformer", "clip", "clap")),
    *(f"specmaskfoley.judges.{name}" for name in ("imagebind", "passt", "vggish", "paper_panel")),
}


@pytest.mark.parametrize("table", [*(role.kinds for role in ROLES.values()), PANELS, MELS, VOCODERS])
def test_every_kind_has_an_implementation(table):
    for kind, name in table.items():
        assert isinstance(resolve_name(name), type), kind


def test_the_mini_profile_imports_no_official_network():
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", MINI]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert "specmaskfoley.encoders.mini" in imported
    assert not imported & OFFICIAL
