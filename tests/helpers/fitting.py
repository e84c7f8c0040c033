"""A training as a stage calls it, on the CPU of this process."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator

from specmaskfoley.settings import Run, Training
from specmaskfoley.training.batches import Rows
from specmaskfoley.training.loop import Fitting, History, Objective

RUN = Run(device="cpu", threads=1, workers=1, precision="float32")


class Quiet:
    def metrics(self, network: str, values: dict[str, float], step: int) -> None:
        pass


def fit_on_cpu(
    objective: Objective, rows: Rows, settings: Training, *, dry_run: bool = False, **changes: Any
) -> History:
    given = {"run": RUN, "accelerator": Accelerator(cpu=True), "seed": 0, "log": Quiet()}
    return Fitting(objective=objective, rows=rows, settings=settings, **(given | changes)).train(dry_run)
