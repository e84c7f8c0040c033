"""What runs again after an edit, through DVC itself: the table in docs/development.md."""

from __future__ import annotations

import re
import signal

import numpy as np
import pytest
from helpers.tiny import Project

from specmaskfoley.storage.tables import read_arrays

pytestmark = pytest.mark.pipeline


def ran(output: str) -> list[str]:
    """Stages that dvc ran, in its order."""
    return re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE)


def edit(project: Project, file: str, old: str, new: str) -> None:
    path = project.path("src", "specmaskfoley", file)
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{file} does not hold {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.fixture(scope="module")
def edited(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return reproduced.copy(tmp_path_factory.mktemp("edited") / "project")


def test_words_run_only_the_lineage(edited: Project) -> None:
    for file in edited.path("src").rglob("*.py"):
        file.write_text(file.read_text(encoding="utf-8") + "\n# A comment at the end.\n", encoding="utf-8")
    edit(edited, "vocoders/hifigan.py", "super().__init__()", "super().__init__(), 1")  # not in use
    assert ran(edited.dvc("repro")) == ["lineage"]


def test_a_metric_runs_evaluate_and_report(edited: Project) -> None:
    edit(edited, "metrics/kl.py", "np.asarray(", "0 + np.asarray(")
    assert ran(edited.dvc("repro")) == ["lineage", "evaluate", "report"]


def test_the_control_network_runs_what_hangs_on_it(edited: Project) -> None:
    edit(edited, "control/network.py", "sync_width, width, 7, padding=3", "sync_width, width, 5, padding=2")
    assert ran(edited.dvc("repro"))[:3] == ["lineage", "control", "sample"]  # and the others if its sounds changed


def test_the_formula_of_a_feature_makes_all_rows_anew(edited: Project) -> None:
    edit(edited, "extraction/features.py", "semantic.float().mean(1)", "semantic.float().amax(1)")
    output = edited.dvc("repro")
    assert "features: 48 clips, 0 of them kept from before" in output
    # What comes later runs if the sounds changed, which a tiny control branch does not change for sure.
    assert ran(output)[:5] == ["lineage", "features", "backbone", "control", "sample"]
    _, arrays = read_arrays(edited.path("data", "features"), "test", ["semantic", "semantic_mean"])
    np.testing.assert_allclose(arrays["semantic_mean"], arrays["semantic"].max(1), atol=1e-3)


def test_a_training_goes_on_though_its_log_has_changed(edited: Project) -> None:
    edited.change(lambda params: params["profiles"]["mini"]["train_control"]["optim"].update(base_learning_rate=0.02))
    with edited.fork("repro") as running:
        running.wait_for(lambda: list(edited.path(".work").glob("control-*/control-*.pt")), "a checkpoint")
        for process in [*edited.processes(), running.process]:
            process.send_signal(signal.SIGKILL)
    edit(edited, "tracking.py", "the stage goes on without it", "nothing is sent")
    output = edited.dvc("repro")
    assert "control: going on from step" in output
    assert ran(output) == ["lineage", "control", "sample", "evaluate", "report"]
