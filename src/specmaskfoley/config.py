"""params.yaml as frozen, typed settings: parsed once, unknown keys and wrong types are errors.

The top level of params.yaml holds what users sweep (`cfg`, `sample`, `data`, `seed`); everything that
depends on the scale lives under `profiles.<profile>` and is merged in here, so that the rest of the code
never asks which profile runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

GUIDANCE_MODES = ("multi", "no_text_video", "no_video", "text", "audio")
GuidanceMode = Literal["multi", "no_text_video", "no_video", "text", "audio"]


class Settings(BaseModel):
    """Base of every section: immutable, no unknown keys, no silent type conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Paths(Settings):
    """Where the stages read and write; relative to the directory of params.yaml."""

    clips: str
    clip_list: str
    ledger: str
    encoders: str
    features: str
    codec: str
    tokens: str
    backbone: str
    control: str
    judges: str
    samples: str
    metrics: str


class Data(Settings):
    """Where clips come from."""

    source: Literal["world", "folder"]
    folder: str | None = None
    labels: str | None = None


class Guidance(Settings):
    """Multi-CFG, eq. 1 of the paper; `mode` picks a row of its Table 2."""

    scale: NonNegative
    mode: GuidanceMode


class Sample(Settings):
    """MaskGIT iterative decoding (section 3.3)."""

    steps: Positive
    gumbel_temperature: NonNegative
    schedule: Literal["cosine", "linear"] = "cosine"
    batch_size: Positive
    videos: Annotated[int, Field(ge=0)]


class Run(Settings):
    """How the stages run; nothing here may change a result except `threads` and `precision`."""

    device: str
    threads: Annotated[int, Field(ge=0)]
    workers: Annotated[int, Field(ge=0)]
    precision: Literal["auto", "float32", "bfloat16"]


class Audio(Settings):
    """Clip length and mel-spectrogram; every other length follows from these."""

    duration_s: PositiveFloat
    sample_rate: Positive
    n_fft: Positive
    hop_length: Positive
    num_mels: Positive
    fmin: NonNegative
    fmax: PositiveFloat
    patch: Positive

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.num_mels % self.patch:
            raise ValueError(f"num_mels={self.num_mels} must be a multiple of patch={self.patch}")
        if self.fmin >= self.fmax:
            raise ValueError(f"fmin={self.fmin} must be below fmax={self.fmax}")
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length={self.hop_length} must be at most n_fft={self.n_fft}")
        if self.fmax > self.sample_rate / 2:
            raise ValueError(f"fmax={self.fmax} is above half of sample_rate={self.sample_rate}")
        if self.token_columns < 1:
            raise ValueError(f"duration_s={self.duration_s} is shorter than one token column")
        return self

    @property
    def token_rows(self) -> int:
        """F: rows of the token grid."""
        return self.num_mels // self.patch

    @property
    def token_columns(self) -> int:
        """T: columns of the token grid; whole patches only (10 s: 861 frames, 848 used, T = 53)."""
        return int(self.duration_s * self.sample_rate / self.hop_length) // self.patch

    @property
    def num_frames(self) -> int:
        """Mel frames used: cropped from the start, so that token 0 begins at 0 s."""
        return self.token_columns * self.patch

    @property
    def num_samples(self) -> int:
        """Waveform samples covered by the token grid (10 s: 217,088)."""
        return self.num_frames * self.hop_length

    @property
    def token_duration_s(self) -> float:
        return self.num_samples / self.sample_rate


class Video(Settings):
    """Frame rates and square sizes at which the encoders see a video."""

    sync_fps: PositiveFloat
    sync_size: Positive
    semantic_fps: PositiveFloat
    semantic_size: Positive

    def sync_frames(self, duration_s: float) -> int:
        return round(self.sync_fps * duration_s)

    def semantic_frames(self, duration_s: float) -> int:
        return round(self.semantic_fps * duration_s)


class World(Settings):
    """The procedural audio-visual world: clips rendered per split."""

    train_clips: Positive
    val_clips: Positive
    test_clips: Positive
    fps: Positive


class Prepare(Settings):
    """Which clips are usable; a shorter video is padded with its last frame and silence."""

    min_duration_s: PositiveFloat
    silence_db: Finite
    shard_rows: Positive
    val_fraction: Fraction
    test_fraction: Fraction

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction={self.val_fraction} and test_fraction={self.test_fraction} leave no clips to train on"
            )
        return self


class Training(Settings):
    """One optimisation run: AdamW, linear warm-up, cosine decay to zero.

    The peak learning rate is `base_learning_rate * batch_size / 256` (paper, section 4.1).
    """

    steps: Positive
    batch_size: Positive
    base_learning_rate: PositiveFloat
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: NonNegative
    grad_clip: PositiveFloat
    checkpoint_every: Positive
    validate_every: Positive

    @property
    def peak_learning_rate(self) -> float:
        return self.base_learning_rate * self.batch_size / 256


class VideoEncoder(Settings):
    """One video encoder: `kind` names the implementation that fills the role."""

    kind: Literal["mini"]
    width: Positive
    channels: Annotated[tuple[Positive, ...], Field(min_length=1)]


class PromptEncoder(Settings):
    """The encoder of sounds and texts; `blocks` of convolution over time."""

    kind: Literal["mini"]
    width: Positive
    blocks: Positive


class Encoders(Settings):
    """The feature encoders; `max_clips` bounds what their training holds in memory."""

    max_clips: Positive
    sync: VideoEncoder
    semantic: VideoEncoder
    prompt: PromptEncoder
    train_sync: Training
    train_semantic: Training
    train_prompt: Training


class Codec(Settings):
    """SpecVQGAN-style tokenizer; `stem` folds stem x stem mel pixels into channels before the first level."""

    codebook_size: Positive
    code_width: Positive
    stem: Positive
    channels: Positive
    channel_mults: tuple[Positive, ...]
    encoder_blocks: Positive
    decoder_blocks: Positive
    attention: bool


class TrainCodec(Settings):
    optim: Training
    crop_columns: Positive
    quantize_after: Annotated[int, Field(ge=0)]
    commitment_weight: NonNegative
    squared_weight: NonNegative
    adversarial_weight: NonNegative
    adversarial_after: Annotated[int, Field(ge=0)]
    perceptual_weight: NonNegative
    codebook_decay: Fraction
    dead_code_threshold: NonNegative

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.quantize_after >= self.optim.steps:
            raise ValueError(
                f"quantize_after={self.quantize_after} leaves none of optim.steps={self.optim.steps} to the codebook"
            )
        return self


class Backbone(Settings):
    """SpecMaskGIT: a bidirectional Transformer over F x T tokens."""

    depth: Positive
    width: Positive
    heads: Positive
    mlp_width: Positive

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self


class TrainBackbone(Settings):
    optim: Training
    prompt_dropout: Fraction


class Control(Settings):
    """ControlNet branch: how many backbone blocks it copies, and the FT-Aligner's hidden width."""

    depth: Positive
    aligner_mlp_width: Positive


class TrainControl(Settings):
    optim: Training
    prompt_dropout: Fraction


class Vocoder(Settings):
    kind: Literal["griffin_lim"]
    iterations: Positive
    momentum: Fraction


class Judges(Settings):
    """Evaluation networks, trained apart from the generator's own encoders."""

    width: Positive
    sync_window_s: PositiveFloat
    sync_max_offset_s: PositiveFloat
    sync_classes: Positive
    train_tagger: Training
    train_audio: Training
    train_audio_video: Training
    train_sync: Training

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sync_max_offset_s >= self.sync_window_s:
            raise ValueError(
                f"sync_max_offset_s={self.sync_max_offset_s} must be below sync_window_s={self.sync_window_s}: "
                "a window shifted by more has nothing left to compare"
            )
        if self.sync_classes < 3 or self.sync_classes % 2 == 0:
            raise ValueError(f"sync_classes={self.sync_classes} must be odd and at least 3, so that 0 s is a class")
        return self


class Evaluate(Settings):
    onset_tolerance_s: PositiveFloat
    pictures: Annotated[int, Field(ge=0)]


class Params(Settings):
    """Everything the pipeline can be told."""

    profile: str
    seed: Annotated[int, Field(ge=0)]
    paths: Paths
    data: Data
    run: Run
    cfg: Guidance
    sample: Sample
    audio: Audio
    video: Video
    world: World
    prepare: Prepare
    encoders: Encoders
    codec: Codec
    train_codec: TrainCodec
    backbone: Backbone
    train_backbone: TrainBackbone
    control: Control
    train_control: TrainControl
    vocoder: Vocoder
    judges: Judges
    evaluate: Evaluate

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.control.depth > self.backbone.depth:
            raise ValueError(
                f"control.depth={self.control.depth} copies more blocks than backbone.depth={self.backbone.depth}"
            )
        patch = self.codec.stem * 2 ** (len(self.codec.channel_mults) - 1)
        if patch != self.audio.patch:
            raise ValueError(
                f"codec.stem={self.codec.stem} and {len(self.codec.channel_mults)} codec.channel_mults give "
                f"patches of {patch}, but audio.patch={self.audio.patch}"
            )
        if self.data.source == "folder" and not self.data.folder:
            raise ValueError("data.folder is null, but data.source=folder needs a directory of videos")
        return self

    @classmethod
    def load(cls, path: str | Path = "params.yaml") -> Params:
        """Read and check params.yaml.

        Raises:
            ValueError: naming the setting, its value and what was expected.
        """
        path = Path(path)
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file; run from the project's top directory") from None
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: not valid YAML: {error}") from None
        return cls.from_mapping(raw, str(path))

    @classmethod
    def from_mapping(cls, raw: Any, where: str = "params.yaml") -> Params:
        """Merge the chosen profile into the top level and check every key and type."""
        if not isinstance(raw, dict):
            raise ValueError(f"{where}: expected a mapping at the top level, found {type(raw).__name__}")
        base = dict(raw)
        profiles = base.pop("profiles", None)
        profile = base.get("profile")
        if not isinstance(profiles, dict) or not isinstance(profile, str) or profile not in profiles:
            known = ", ".join(profiles) if isinstance(profiles, dict) else "none"
            raise ValueError(f"{where}: profile={profile!r} is not under profiles: (known: {known})")
        if not isinstance(profiles[profile], dict):
            raise ValueError(f"{where}: profiles.{profile} is empty; expected the sections of a profile")
        twice = sorted(set(base) & set(profiles[profile]))
        if twice:
            raise ValueError(f"{where}: {', '.join(twice)} set both at the top level and in profiles.{profile}")
        try:
            return cls.model_validate(_tuples({**base, **profiles[profile]}))
        except ValidationError as error:
            raise ValueError(_explain(error, where, set(profiles[profile]), str(profile))) from None

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


def _tuples(value: Any) -> Any:
    """YAML has lists only; strict checking wants tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _explain(error: ValidationError, where: str, in_profile: set[str], profile: str) -> str:
    lines = []
    for item in error.errors():
        keys = [str(part) for part in item["loc"]]
        name = ".".join(([f"profiles.{profile}"] if keys and keys[0] in in_profile else []) + keys)
        if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            lines.append(f"{where}: {name} is not a known setting; check its spelling")
        elif item["type"] in ("missing", "missing_argument"):
            lines.append(f"{where}: {name} is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(item["input"], dict) else f"={item['input']!r}"
            lines.append(f"{where}: {name}{shown}: {message}" if name else f"{where}: {message}")
    return "\n".join(lines)
