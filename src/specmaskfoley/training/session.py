"""What a training stage runs in: its devices, and the scratch folder and MLflow run that the first process opens."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, broadcast_object_list

from specmaskfoley import tracking
from specmaskfoley.device import announce, precision_name, start
from specmaskfoley.lineage import stage_key
from specmaskfoley.settings import Params, Training
from specmaskfoley.storage.scratch import scratch
from specmaskfoley.training.batches import Rows
from specmaskfoley.training.loop import Fitting, History, Objective

_PATIENCE = timedelta(hours=24)
"""How long processes wait for the first one, which alone reads mels, validates and draws the pictures for MLflow."""


class Silent:
    """The log of the processes that only compute."""

    def metrics(self, network: str, values: dict[str, float], step: int) -> None:
        """Nothing: the first process logs the same."""


@dataclass(frozen=True)
class Session:
    params: Params
    accelerator: Accelerator
    folder: Path
    log: tracking.Log | None
    dry_run: bool

    @property
    def device(self) -> torch.device:
        return torch.device(self.accelerator.device)

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return bool(self.accelerator.is_main_process)

    def fit(
        self,
        objective: Objective,
        rows: Rows,
        settings: Training,
        *,
        name: str,
        seed: int | None = None,
        listen: Callable[[int], None] | None = None,
    ) -> History:
        """Train network `name`, by the seed of the settings unless another is given; see `training.loop.Fitting`."""
        return Fitting(
            objective=objective,
            rows=rows,
            settings=settings,
            run=self.params.run,
            accelerator=self.accelerator,
            seed=self.params.seed if seed is None else seed,
            name=name,
            scratch=self.folder,
            log=self.log or Silent(),
            listen=listen,
        ).train(self.dry_run)


@contextmanager
def session(
    stage: str,
    params: Params,
    *,
    spread: bool = False,
    dry_run: bool = False,
) -> Iterator[Session]:
    """
    Args:
        stage: whose code, settings and inputs, as in dvc.yaml, decide whether an unfinished training goes on.
        spread: start this stage once more by `run.launch`, if that is set, in several processes.
        dry_run: for a few steps, without MLflow.

    Raises:
        ValueError: `run.launch` names no program, or `run.device` does not exist.
    """
    if spread and params.run.launch and "RANK" not in os.environ:
        _launch(params.run.launch)
    device = start(params, stage)
    scaled = "fp16" if params.run.precision == "float16" and device.type == "cuda" else "no"
    patience = InitProcessGroupKwargs(timeout=_PATIENCE)
    # A step trains the head of one level alone; a branch, the backbone being frozen, always learns as a whole.
    partly = DistributedDataParallelKwargs(find_unused_parameters=stage == "backbone" and params.backbone.levels > 1)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=scaled, kwargs_handlers=[patience, partly])
    with ExitStack() as stack:
        folder, log = [""], None
        if accelerator.is_main_process:
            announce(device, precision_name(params.run.precision, device))
            folder = [str(stack.enter_context(scratch(stage, stage_key(stage, params))))]
            log = None if dry_run else stack.enter_context(tracking.stage_run(stage, params))
        if accelerator.num_processes > 1:
            broadcast_object_list(folder)
        yield Session(params, accelerator, Path(folder[0]), log, dry_run)
        accelerator.wait_for_everyone()
    accelerator.free_memory()


def _launch(command: str) -> None:
    """Become `command` followed by this stage's own command line."""
    words = shlex.split(command)
    sys.stdout.flush()
    try:
        os.execvp(words[0], [*words, *sys.argv])
    except OSError as error:
        raise ValueError(
            f"run.launch={command!r}: cannot be run ({error.strerror}); e.g. torchrun --nproc-per-node 4"
        ) from None
