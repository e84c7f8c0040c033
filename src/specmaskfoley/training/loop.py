"""One training loop for every network of the pipeline.

An `Objective` says what the loss of a batch is; `fit` does the rest: AdamW, warm-up and cosine, clipping,
validation, checkpoints. Everything random at step s derives from (seed, s) alone, so a run that was killed and
goes on from a checkpoint takes exactly the steps it would have taken.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from specmaskfoley.config import Training
from specmaskfoley.storage.checkpoint import TrainingStates

Scores = dict[str, float]
Curves = dict[str, list[tuple[int, float]]]

_TERMINATED = 128 + signal.SIGTERM  # the exit code of a shell's child that SIGTERM ended


class Objective(Protocol):
    """What is trained, and on what.

    modules: everything whose state a checkpoint keeps.
    groups: parameters by optimizer; one optimizer steps after the other (generator, discriminator).
    """

    modules: nn.Module

    def groups(self) -> dict[str, list[nn.Parameter]]: ...

    def loss(self, group: str, rows: np.ndarray, step: int, generator: torch.Generator) -> tuple[Tensor, Scores]:
        """Loss of the training rows of one step, and what to log."""
        ...

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Whatever changes without a gradient (an EMA codebook)."""
        ...

    def validate(self, generator: torch.Generator) -> Scores:
        """Scores on the validation split; called with gradients off and modules in eval mode."""
        ...


class MetricLog(Protocol):
    def metrics(self, values: dict[str, float], step: int) -> None: ...


@dataclass
class History:
    """Curves by name: [(step, value), ...]; what the plots and the metrics files are made from."""

    curves: Curves = field(default_factory=dict)

    def add(self, values: Scores, step: int) -> None:
        for name, value in values.items():
            self.curves.setdefault(name, []).append((step, value))

    def last(self) -> Scores:
        return {name: points[-1][1] for name, points in self.curves.items()}


class RowSampler:
    """Which rows a step trains on: every row exactly once an epoch, in an order drawn from (seed, epoch)."""

    def __init__(self, num_rows: int, batch_size: int, seed: int) -> None:
        if num_rows < 1:
            raise ValueError("the training split has no rows; see the ledger for the reasons")
        self.num_rows, self.batch_size, self.seed = num_rows, batch_size, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def rows(self, step: int) -> np.ndarray:
        """Row indices of step 0, 1, ...; a batch may span two epochs."""
        first = step * self.batch_size
        return np.array([self._row(position) for position in range(first, first + self.batch_size)])

    def _row(self, position: int) -> int:
        epoch, offset = divmod(position, self.num_rows)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.num_rows)
        return int(self._order[offset])


def learning_rate(settings: Training, step: int) -> float:
    """Linear warm-up to the peak, cosine to zero at the last step."""
    if step < settings.warmup_steps:
        return settings.peak_learning_rate * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.peak_learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def fit(
    objective: Objective,
    clips: Sequence[str],
    settings: Training,
    *,
    seed: int,
    name: str,
    scratch: Path,
    log: MetricLog,
) -> History:
    """Train to the last step, going on from the newest good checkpoint in `scratch` if there is one.

    SIGTERM, by which clusters take machines back, ends the step at hand, writes a checkpoint and exits with code 143.

    Args:
        clips: ids of the training rows.

    Raises:
        ValueError: the loss is no longer finite (named: the step, its clips, the last good checkpoint), a checkpoint
            cannot be written, or none can be read.
    """
    sampler = RowSampler(len(clips), settings.batch_size, seed)
    groups = objective.groups()
    optimizers = {key: _adamw(parameters, settings) for key, parameters in groups.items()}
    states = TrainingStates(scratch, name)
    first, history = _restore(states, name, objective, optimizers)

    objective.modules.train()
    bar = tqdm(range(first, settings.steps), initial=first, total=settings.steps, desc=name, mininterval=1.0)
    with _terminated() as terminated:
        for step in bar:
            generator, rows, rate = step_generator(seed, step), sampler.rows(step), learning_rate(settings, step)
            scores: Scores = {}
            for key, optimizer in optimizers.items():
                loss, seen = objective.loss(key, rows, step, generator)
                scores |= seen
                if not _descend(loss, groups[key], optimizer, rate, settings.grad_clip):
                    raise ValueError(_not_finite(name, key, loss, step, [clips[row] for row in rows], states.newest))
            objective.after_step(step, generator)

            done = step + 1
            if done % 10 == 0 or done == settings.steps:
                _record(history, log, scores | {"learning_rate": rate}, done)
                bar.set_postfix({key: f"{value:.3g}" for key, value in list(scores.items())[:3]}, refresh=False)
            if done % settings.validate_every == 0 or done == settings.steps:
                _record(history, log, _validate(objective, seed), done)
            stop = terminated() and done < settings.steps
            if done % settings.checkpoint_every == 0 or done == settings.steps or stop:
                _keep(states, objective, optimizers, history, done)
            if stop:
                print(f"{name}: terminated after step {done}; `dvc repro` goes on from there", flush=True)
                raise SystemExit(_TERMINATED)
    objective.modules.eval()
    return history


def _descend(
    loss: Tensor, parameters: list[nn.Parameter], optimizer: torch.optim.AdamW, rate: float, grad_clip: float
) -> bool:
    """One optimizer step, unless loss and gradient are not finite; whether it was made."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        return False
    optimizer.step()
    return True


def _not_finite(name: str, key: str, loss: Tensor, step: int, clips: list[str], last: Path | None) -> str:
    kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
    return (
        f"{name}: loss of {key} is {loss.item()}, or its gradient not finite, at step {step}; {kept}. Try a lower "
        f"base_learning_rate. The step's clips: {', '.join(clips)}"
    )


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one step."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _adamw(parameters: Iterable[nn.Parameter], settings: Training) -> torch.optim.AdamW:
    """Biases, norms and embeddings of one dimension are not decayed."""
    parameters = list(parameters)
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.96), fused=parameters[0].device.type != "mps")


def _validate(objective: Objective, seed: int) -> Scores:
    objective.modules.eval()
    with torch.no_grad():
        scores = objective.validate(step_generator(seed, 2**31))
    objective.modules.train()
    return {f"val_{name}": value for name, value in scores.items()}


def _record(history: History, log: MetricLog, values: Scores, step: int) -> None:
    history.add(values, step)
    log.metrics(values, step)


def _keep(
    states: TrainingStates,
    objective: Objective,
    optimizers: dict[str, torch.optim.AdamW],
    history: History,
    done: int,
) -> None:
    state: dict[str, Any] = {
        "step": done,
        "modules": objective.modules.state_dict(),
        "optimizers": {key: optimizer.state_dict() for key, optimizer in optimizers.items()},
        "curves": history.curves,
    }
    states.save(done, state)


def _restore(
    states: TrainingStates, name: str, objective: Objective, optimizers: dict[str, torch.optim.AdamW]
) -> tuple[int, History]:
    state = states.load()
    if state is None:
        return 0, History()
    try:
        objective.modules.load_state_dict(state["modules"])
        for key, optimizer in optimizers.items():
            optimizer.load_state_dict(state["optimizers"][key])
    except (RuntimeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{states.newest}: the checkpoint of another model ({str(error).splitlines()[0]}); delete it to train from "
            "the start"
        ) from None
    print(f"{name}: going on from step {state['step']}", flush=True)
    curves = {key: [(int(s), float(v)) for s, v in points] for key, points in state["curves"].items()}
    return int(state["step"]), History(curves)


@contextmanager
def _terminated() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come; it does nothing else meanwhile. Only the main thread can listen."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
