"""How stages run, and how a network is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from specmaskfoley.settings.base import NonNegative, Positive, PositiveFloat, Settings

Trains = Literal["encoders", "codec", "backbone", "control", "judges"]


class Run(Settings):
    """How the stages run; nothing here may change a result except `precision` and, in the last bits, `threads`,
    `training_threads`, `micro_batch`, `compile` and the number of processes that `launch` starts.
    """

    device: str
    threads: Annotated[int, Field(ge=0)]
    workers: Annotated[int, Field(ge=0)]
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    launch: str | None = None
    compile: Literal["auto", "always", "never"] = "auto"
    micro_batch: Annotated[int, Field(ge=0)] = 0
    checkpoint_minutes: PositiveFloat = 10.0
    engine: Literal["local", "ray"] = "local"
    unit_clips: Positive = 64
    training_threads: dict[Trains, Positive] = Field(default_factory=dict)

    def threads_of(self, stage: str) -> int:
        """CPU threads of torch in a stage."""
        own = [threads for name, threads in self.training_threads.items() if name == stage] if stage else []
        return [*own, self.threads][0]


class Training(Settings):
    """One optimisation run: AdamW, linear warm-up, cosine decay to zero.

    The peak learning rate is `base_learning_rate * batch_size / 256` (paper, section 4.1). `result` says which state
    the stage keeps: the last, or the one that validated best.
    """

    steps: Positive
    batch_size: Positive
    base_learning_rate: PositiveFloat
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: NonNegative
    grad_clip: PositiveFloat
    checkpoint_every: Positive
    validate_every: Positive
    result: Literal["last", "best"] = "last"

    @property
    def peak_learning_rate(self) -> float:
        return self.base_learning_rate * self.batch_size / 256
