"""What a training will need: memory and disk before it begins, hours after its first steps."""

from __future__ import annotations

import math
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from specmaskfoley.settings import Training
from specmaskfoley.storage.checkpoint import KEPT
from specmaskfoley.storage.files import show_size

_MEASURED_STEPS = 10


class Preflight:
    """Estimates for one training.

    Args:
        modules: what a checkpoint holds; groups: what is optimised.
        folder: where checkpoints go.
    """

    def __init__(
        self,
        name: str,
        modules: nn.Module,
        groups: Mapping[str, Sequence[nn.Parameter]],
        settings: Training,
        folder: Path,
        device: torch.device,
    ) -> None:
        self._name, self._settings, self._folder, self._device = name, settings, folder, device
        trained = [parameter for group in groups.values() for parameter in group]
        self._count = sum(parameter.numel() for parameter in trained)
        weights = sum(value.numel() * value.element_size() for value in modules.state_dict().values())
        single = sum(parameter.numel() * parameter.element_size() for parameter in trained)
        self._memory = weights + 3 * single  # gradients and the two moments of Adam
        self._checkpoint = weights + 2 * single
        self._ticks: list[float] = []

    def check(self, *, keeps_best: bool) -> None:
        """Print parameters, memory and disk space.

        Raises:
            ValueError: the disk has no room for the checkpoints.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        files = KEPT + 1 + keeps_best  # a new one is written before the oldest is removed
        needed, free = files * self._checkpoint, shutil.disk_usage(self._folder).free
        print(
            f"{self._name}: {self._count / 1e6:.1f} M parameters to train; weights, gradients and optimizer "
            f"{show_size(self._memory)}, activations on top; checkpoints up to {show_size(needed)} of "
            f"{show_size(free)} free disk",
            flush=True,
        )
        if needed > free:
            raise ValueError(
                f"{self._folder}: checkpoints of {self._name} need {show_size(needed)} of disk, "
                f"{show_size(free)} are free"
            )

    def step_ended(self, *, prints: bool) -> None:
        """Note the time; after ten steps print, if `prints`, how long all of them will take."""
        if len(self._ticks) > _MEASURED_STEPS:
            return
        self._ticks.append(self._now())
        if prints and len(self._ticks) == _MEASURED_STEPS:
            seconds = self._step_s()  # short trainings end before anyone could read it
            if seconds * self._settings.steps > 120:
                print(f"{self._name}: {self._hours(seconds)}", flush=True)

    def report(self, processes: int) -> None:
        """Print the peak of memory and the hours that the measured steps predict."""
        if self._device.type == "cuda":
            peak = show_size(torch.cuda.max_memory_allocated(self._device))
            peak += f" on {torch.cuda.get_device_name(self._device)}"
        else:
            unit = 1 if sys.platform == "darwin" else 1024
            peak = f"{show_size(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)} of main memory"
        where = f", in each of {processes} processes" if processes > 1 else ""
        print(f"{self._name}: peak {peak}{where}; {self._hours(self._step_s())}. Nothing was kept", flush=True)

    def _hours(self, seconds: float) -> str:
        total = seconds * self._settings.steps
        hours = f"{total / 3600:.1f} h" if total >= 3600 else f"{total / 60:.0f} min"
        clips = self._settings.batch_size / seconds
        rate = f"{clips:.{0 if clips >= 10 else 2}f} clips/s"
        return f"{self._settings.steps:,} steps of {1000 * seconds:.0f} ms ({rate}) will take about {hours}"

    def _step_s(self) -> float:
        """Median over the measured steps but the first, which also loads and compiles."""
        differences = [after - before for before, after in zip(self._ticks, self._ticks[1:], strict=False)]
        return statistics.median(differences) if differences else math.nan

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
