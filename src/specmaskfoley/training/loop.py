"""One training loop for every network of the pipeline, on one device or many (Hugging Face Accelerate).

An `Objective` says what the loss of a batch is; `Fitting` does the rest: AdamW, warm-up and cosine, clipping,
validation, checkpoints. Everything random at step s derives from (seed, s) alone and is drawn for the whole step, so a
run that was killed and goes on from a checkpoint takes exactly the steps it would have taken, on any number of devices.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from specmaskfoley.device import compile_trouble, compiled
from specmaskfoley.settings import Run, Training
from specmaskfoley.storage.checkpoint import TrainingStates
from specmaskfoley.training.batches import Batch, Batches, RowOrder, Rows
from specmaskfoley.training.preflight import Preflight

Scores = dict[str, float]
Curves = dict[str, list[tuple[int, float]]]

RECORD_EVERY = 10
"""Steps between two readings of the loss. A reading makes the host wait for the device; between them it runs ahead and
keeps the device busy. A loss that is not finite is therefore noticed within ten steps."""

DRY_STEPS = 5
"""Steps of a dry run. The first also loads and compiles; the median of the others is what a step takes."""

_TERMINATED = 128 + signal.SIGTERM  # the exit code of a shell's child that SIGTERM ended


class Objective(Protocol):
    """What is trained, and on what.

    modules: everything whose state a checkpoint keeps.
    criterion: the validation score by which the best state is known, lower is better; None: there is none.
    splits: whether the losses of parts of a batch add up to that of the whole. If so, a step may be spread over
        processes and done in several passes; if not (contrastive losses), one process does it in one pass.
    """

    modules: nn.Module
    criterion: str | None
    splits: bool

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by optimizer; one optimizer steps after the other (generator, discriminator)."""
        ...

    def distribute(self, prepare: Callable[..., nn.Module], total: Callable[[Tensor], Tensor]) -> None:
        """Pass what has parameters to `prepare(network, compiles=True)` and call what it returns in `loss`; `total`
        sums over processes."""
        ...

    def draw(self, size: int, step: int, generator: torch.Generator) -> Batch:
        """What is random about each of the B rows of a step: columns (B, ...) on the CPU."""
        ...

    def loss(self, group: str, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of rows of one step, and what to log; if `splits`, their shares of those of the whole step."""
        ...

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Whatever changes without a gradient (an EMA codebook)."""
        ...

    def validate(self, generator: torch.Generator) -> Scores:
        """Scores on the validation split; called by the first process alone, with gradients off and modules in eval
        mode, so nothing in it may wait for other processes."""
        ...


class MetricLog(Protocol):
    """Where curves go while a training runs."""

    def metrics(self, network: str, values: dict[str, float], step: int) -> None: ...


@dataclass
class History:
    """Curves by name: [(step, value), ...]; what the plots and the metrics files are made from."""

    curves: Curves = field(default_factory=dict)

    def add(self, values: Scores, step: int) -> None:
        for name, value in values.items():
            self.curves.setdefault(name, []).append((step, value))

    def last(self) -> Scores:
        return {name: points[-1][1] for name, points in self.curves.items()}


def learning_rate(settings: Training, step: int) -> float:
    """Linear warm-up to the peak, cosine to zero at the last step."""
    if step < settings.warmup_steps:
        return settings.peak_learning_rate * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.peak_learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of one step, on the CPU: its numbers are the same on every device.

    A generator that ran on from step to step would have to be part of every checkpoint, and would depend on how many
    processes draw from it. SeedSequence keeps (0, 1) and (1, 0) apart, as a sum of seed and step would not.
    """
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@dataclass(kw_only=True)
class Fitting:
    """One training.

    After SIGTERM, which clusters send before they take a machine back, the current step is finished, a checkpoint is
    written, and the exit code is 143. If another process of the training ends, a checkpoint is written too, and the
    exit code is 1.

    Args:
        scratch: folder of the checkpoints.
        listen: called by the first process after each validation with the steps done, modules in eval mode.

    Raises:
        ValueError: the objective's loss cannot be spread over so many processes.
    """

    objective: Objective
    rows: Rows
    settings: Training
    run: Run
    accelerator: Accelerator
    seed: int
    name: str
    scratch: Path
    log: MetricLog
    listen: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        processes = self.accelerator.num_processes
        if not self.objective.splits and processes > 1:
            raise ValueError(f"{self.name}: its loss cannot be spread over {processes} processes; use one")
        self.order = RowOrder(self.rows.group_sizes, self.seed)
        self.states = TrainingStates(self.scratch, self.name)
        self.groups = self.objective.groups()
        self.optimizers = {key: _adamw(parameters, self.settings) for key, parameters in self.groups.items()}
        self.history = History()
        self.best = math.inf
        # Step, group, whether loss and gradient are finite: kept on the device until the next reading.
        self.pending: list[tuple[int, str, Tensor]] = []

    def train(self, dry_run: bool = False) -> History:
        """Train to the last step, going on from the newest good checkpoint in `scratch` if there is one.

        Args:
            dry_run: take a few steps, print what all of them will need, and exit with code 0; nothing is written.

        Raises:
            ValueError: the loss is no longer finite (named: the step, its clips, the last good checkpoint), a
                checkpoint cannot be written, none can be read, or the disk is too small.
        """
        objective, settings, leads = self.objective, self.settings, self.accelerator.is_main_process
        first = 0 if dry_run else self._restore()
        self._distribute()  # after loading: compiled and wrapped networks have other names in their states
        preflight = Preflight(
            self.name, objective.modules, self.groups, settings, self.scratch, self.accelerator.device
        )
        if leads and first < settings.steps:
            preflight.check(keeps_best=settings.result == "best")
        last = min(settings.steps, first + DRY_STEPS) if dry_run else settings.steps
        objective.modules.train()
        bar = tqdm(
            range(first, last), initial=first, total=settings.steps, desc=self.name, mininterval=1.0, disable=not leads
        )
        with self._batches(first, last) as batches, _terminated() as terminated:
            self._kept_at = time.monotonic()
            for step, batch in zip(bar, batches, strict=True):
                try:
                    scores = self._step(step, batch)
                except RuntimeError as error:
                    self._lost(step, error)
                preflight.step_ended(prints=leads and not dry_run)
                if dry_run:
                    continue
                done, stop = step + 1, False
                # A single process reads as soon as it is asked to end. Several must read at the same steps, since a
                # reading sums over all of them; they learn of the signal at the next one.
                if (
                    done % RECORD_EVERY == 0
                    or self._due(done)
                    or (terminated() and self.accelerator.num_processes == 1)
                ):
                    stop = self._read(scores, done, terminated(), bar) and done < settings.steps
                # The others wait for the first at the next exchange of gradients, or after the last step.
                if leads and (done % settings.validate_every == 0 or done == settings.steps):
                    self._validate(done)
                if leads and (stop or self._due(done) or self._overdue()):
                    self._keep(done)
                if stop:
                    self._leave(done)
        if dry_run:
            if leads:
                preflight.report(self.accelerator.num_processes)
            raise SystemExit(0)
        if settings.result == "best" and leads:
            self._take_best()
        objective.modules.eval()
        return self.history

    # ------------------------------------------------------------------ a step

    def _step(self, step: int, batch: Batch) -> dict[str, Tensor]:
        objective, accelerator, generator = self.objective, self.accelerator, step_generator(self.seed, step)
        ranks, size = accelerator.num_processes, self.settings.batch_size
        # Drawn for all processes, of which each takes every ranks-th row: the same step on any number of them.
        drawn = objective.draw(size, step, generator)
        batch |= {key: values[accelerator.process_index :: ranks] for key, values in drawn.items()}
        parts = list(self._parts(batch))
        rate = learning_rate(self.settings, step)
        scores: dict[str, Tensor] = {}
        self._stepped = False
        for group, optimizer in self.optimizers.items():
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
            optimizer.zero_grad(set_to_none=True)  # no memory to clear, and no gradient for what was not used
            finite = torch.ones((), device=accelerator.device, dtype=torch.bool)
            for number, part in enumerate(parts):
                with ExitStack() as stack:
                    if number + 1 < len(parts):  # gradients are exchanged once a step
                        for network in self.networks:
                            stack.enter_context(accelerator.no_sync(network))
                    loss, seen = objective.loss(group, part, step, generator)
                    # Processes exchange the mean of their gradients, but their shares of the loss add up.
                    accelerator.backward(loss * ranks)
                finite = finite & torch.isfinite(loss.detach())
                for name, value in seen.items():
                    scores[name] = scores[name] + value if name in scores and number else value
            norm = accelerator.clip_grad_norm_(self.groups[group], self.settings.grad_clip)
            # In float16 an overflow is expected now and then: the scaler skips that step and lowers its scale.
            if self.run.precision != "float16":
                finite = finite & torch.isfinite(norm)
            optimizer.step()
            self._stepped = True
            self.pending.append((step, group, finite))
        objective.after_step(step, generator)
        return scores

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        rows = len(batch["row"])
        size = self.run.micro_batch if self.run.micro_batch and self.objective.splits else rows
        for first in range(0, rows, size):
            yield {name: values[first : first + size] for name, values in batch.items()}

    def _leave(self, done: int) -> NoReturn:
        # The launcher ends all processes as soon as one exits, the one that still writes too.
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            print(f"{self.name}: terminated after step {done}; `dvc repro` goes on from there", flush=True)
        raise SystemExit(_TERMINATED)

    def _lost(self, step: int, error: RuntimeError) -> NoReturn:
        """After an error in the exchange between processes, which means that one has ended: write a checkpoint, exit.

        Not once an optimizer of this step has moved its weights: the state is then neither of this step nor the next.
        """
        exchange = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if self.accelerator.num_processes == 1 or not exchange or self._stepped:
            raise error
        self._check_finite()
        if self.accelerator.is_main_process and step > 0:
            self._keep(step)
        # Printed here: the launcher is about to end this process, and an error raised now may never be shown.
        print(
            f"error: {self.name}: another process of this training is gone at step {step} "
            f"({str(error).splitlines()[0]}); the checkpoint of step {step} is kept, `dvc repro` goes on from there",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(1) from error

    # ------------------------------------------------------------------ readings and validation

    def _read(self, scores: Mapping[str, Tensor], done: int, terminated: bool, bar: Any) -> bool:
        """Wait for the device, check and record; returns whether any process was asked to end."""
        values = torch.stack([value.detach().float().to(self.accelerator.device) for value in scores.values()])
        asked = torch.tensor([float(terminated)], device=values.device)  # summed with the scores: one exchange, not two
        summed = self._total(torch.cat([values, asked])).tolist()
        self._check_finite()
        if done % RECORD_EVERY == 0 or done == self.settings.steps:
            seen = dict(zip(scores, summed, strict=False))
            self._record(seen | {"learning_rate": learning_rate(self.settings, done - 1)}, done)
            rate = bar.format_dict["rate"]
            shown = {"clips/s": f"{rate * self.settings.batch_size:.0f}"} if rate else {}
            bar.set_postfix(shown | {key: f"{value:.3g}" for key, value in list(seen.items())[:3]}, refresh=False)
        return bool(summed[-1] > 0)

    def _check_finite(self) -> None:
        flags = torch.stack([finite for _, _, finite in self.pending]).cpu() if self.pending else torch.ones(0)
        for (step, group, _), finite in zip(self.pending, flags.tolist(), strict=True):
            if not finite:
                raise ValueError(self._not_finite(group, step))
        self.pending.clear()

    def _not_finite(self, group: str, step: int) -> str:
        size, newest = self.settings.batch_size, self.states.newest
        rows = self.order.rows(step * size + np.arange(size))
        kept = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
        return (
            f"{self.name}: loss of {group}, or its gradient, is not finite at step {step}; {kept}. Try a lower "
            f"base_learning_rate. The step's clips: {', '.join(self.rows.ids[row] for row in rows)}"
        )

    def _validate(self, done: int) -> None:
        modules = self.objective.modules
        modules.eval()
        with torch.no_grad():
            # One generator for all validations, of a step that is never trained: only weights make scores differ.
            scores = self.objective.validate(step_generator(self.seed, 2**31))
            if self.listen is not None:
                self.listen(done)
        modules.train()
        self._record({f"val_{name}": value for name, value in scores.items()}, done)
        # Chosen by validation: on few clips the training loss still falls while the network learns them by heart.
        criterion = self.objective.criterion
        if self.settings.result == "best" and criterion is not None and scores[criterion] < self.best:
            self.best = scores[criterion]
            self.states.save_best({"step": done, "modules": modules.state_dict()})

    def _record(self, values: Scores, step: int) -> None:
        self.history.add(values, step)
        self.log.metrics(self.name, values, step)

    # ------------------------------------------------------------------ checkpoints

    def _due(self, done: int) -> bool:
        return done % self.settings.checkpoint_every == 0 or done == self.settings.steps

    def _overdue(self) -> bool:
        # By time as well as by steps: what a kill costs is hours, however slow the steps are.
        return time.monotonic() - self._kept_at > 60 * self.run.checkpoint_minutes

    def _keep(self, done: int) -> None:
        self._check_finite()  # weights that are not finite are never kept
        state: dict[str, Any] = {
            "step": done,
            "modules": self.objective.modules.state_dict(),
            "optimizers": {key: optimizer.state_dict() for key, optimizer in self.optimizers.items()},
            "curves": self.history.curves,
            "best": self.best,
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        self.states.save(done, state)
        self._kept_at = time.monotonic()

    def _restore(self) -> int:
        """Steps done so far."""
        # The newest checkpoint that can be read: two are kept, since a machine that fails may damage the newest. The
        # first process reads first, because it renames damaged files.
        with self.accelerator.main_process_first():
            state = self.states.load()
        if state is None:
            return 0
        try:
            self.objective.modules.load_state_dict(state["modules"])
            for key, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][key])
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self.states.newest}: the checkpoint of another model ({str(error).splitlines()[0]}); delete it to "
                "train from the start"
            ) from None
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.accelerator.is_main_process:
            print(f"{self.name}: going on from step {state['step']}", flush=True)
        self.best = float(state["best"])
        self.history = History({key: [(int(s), float(v)) for s, v in pts] for key, pts in state["curves"].items()})
        return int(state["step"])

    def _take_best(self) -> None:
        best = self.states.load_best()
        if best is not None:
            self.objective.modules.load_state_dict(best["modules"])
            print(f"{self.name}: the state of step {best['step']} validated best", flush=True)

    # ------------------------------------------------------------------ devices

    def _distribute(self) -> None:
        self.networks: list[nn.Module] = []

        def prepare(network: nn.Module, compiles: bool = True) -> nn.Module:
            if compiles and _compiles(self.run, self.accelerator.device):
                network = compiled(network)
            prepared: nn.Module = self.accelerator.prepare_model(network)
            self.networks.append(prepared)
            return prepared

        self.objective.distribute(prepare, self._total)
        self.optimizers = {key: self.accelerator.prepare_optimizer(one) for key, one in self.optimizers.items()}

    def _total(self, values: Tensor) -> Tensor:
        """Sum over processes."""
        return self.accelerator.reduce(values, "sum") if self.accelerator.num_processes > 1 else values

    def _batches(self, first: int, last: int) -> Batches:
        ranks = self.accelerator.num_processes
        if self.settings.batch_size % ranks:
            raise ValueError(
                f"{self.name}: batch_size={self.settings.batch_size} cannot be shared by {ranks} processes"
            )
        return Batches(
            self.rows,
            self.order,
            batch_size=self.settings.batch_size,
            steps=range(first, last),
            rank=self.accelerator.process_index,
            ranks=ranks,
            pin=self.accelerator.device.type == "cuda",
        )


def _compiles(run: Run, device: torch.device) -> bool:
    """
    Raises:
        ValueError: run.compile=always, and something that compiling needs is missing.
    """
    wanted = run.compile == "always" or (run.compile == "auto" and device.type == "cuda")
    trouble = compile_trouble(device) if wanted else ""
    if trouble and run.compile == "always":
        raise ValueError(f"run.compile=always: {trouble}; install it, or set run.compile=never")
    if trouble:
        print(f"run.compile=auto: networks are not compiled, which is slower: {trouble}", flush=True)
    return wanted and not trouble


def _adamw(parameters: Iterable[nn.Parameter], settings: Training) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices alone: decay would pull norms and biases from what they mean towards zero.

    One fused kernel updates all parameters; without it AdamW is a chain of small operations, during which a GPU mostly
    waits (on MPS not every version of torch has the kernel). The betas are MaskGIT's. Each step sets the rate.
    """
    parameters = list(parameters)
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.96), fused=parameters[0].device.type != "mps")


@contextmanager
def _terminated() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has arrived; inside, the signal only sets this flag. Only a main thread can handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
