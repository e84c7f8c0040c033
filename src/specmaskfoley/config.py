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

_RECIPE = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "num_mels": 80}
HIFIGAN_RECIPE = {**_RECIPE, "fmin": 0.0, "fmax": 8000.0}
SPECVQGAN_RECIPE = {**_RECIPE, "fmin": 125.0, "fmax": 7600.0}


def told(recipe: dict[str, float]) -> str:
    """A mel recipe for a message."""
    return ", ".join(f"{name} {value:g}" for name, value in recipe.items())


GUIDANCE_MODES = ("multi", "no_text_video", "no_video", "text", "audio")
GuidanceMode = Literal["multi", "no_text_video", "no_video", "text", "audio"]


class Settings(BaseModel):
    """Base of every section: immutable, no unknown keys, no silent type conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Paths(Settings):
    """Where the stages read and write; relative to the directory of params.yaml."""

    weights: str
    clips: str
    clip_list: str
    ledger: str
    usable: str
    encoders: str
    features: str
    codec: str
    tokens: str
    audio_ledger: str
    audio: str
    backbone: str
    control: str
    judges: str
    samples: str
    evaluation: str
    metrics: str


class SplitLimits(Settings):
    """Clips wanted of each split; null: all."""

    train: Positive | None = None
    val: Positive | None = None
    test: Positive | None = None


class Data(Settings):
    """Where clips come from, and which of them are wanted.

    `lists` are VGGSound's splits (sources youtube and archive, and folder with `pattern`); `limit` is the number of
    clips wanted of each split, in a class-balanced draw by `seed` of which a smaller one is part of a larger. `audio`
    are directories of sounds without picture.
    """

    source: Literal["world", "folder", "youtube", "archive"]
    folder: str | None = None
    labels: str | None = None
    lists: str | None = None
    pattern: str = "{youtube_id}_{start:06d}.mp4"
    limit: Positive | SplitLimits | None = None
    exclude_shared: bool = True
    audio: tuple[str, ...] = ()

    def limit_of(self, split: str) -> int | None:
        """Clips wanted of a split; None: all."""
        if isinstance(self.limit, SplitLimits):
            wanted: int | None = getattr(self.limit, split)
            return wanted
        return self.limit

    @property
    def listed(self) -> bool:
        """Whether VGGSound's lists say which clips are wanted."""
        return self.source in ("youtube", "archive") or (self.source == "folder" and self.lists is not None)


class Fetch(Settings):
    """How clips of the sources youtube and archive get here, and where they lie."""

    folder: str
    workers: Positive
    retries: Annotated[int, Field(ge=0)]
    interval_s: NonNegative
    timeout_s: PositiveFloat
    proxy: str | None = None
    cookies: str | None = None
    max_height: Positive
    again: tuple[str, ...] = ()
    youtube: str
    archive: str
    parts: tuple[str, ...] | None = None


class Weights(Settings):
    """Where official weight files lie and how they get there; `weights.lock.yaml` says which there are."""

    folder: str
    bundle: str | None = None
    mirror: str | dict[str, str] | None = None
    proxy: str | None = None
    retries: Annotated[int, Field(ge=0)] = 5


class Guidance(Settings):
    """Multi-CFG, eq. 1 of the paper; `mode` picks a row of its Table 2, `start` is `sampling.guidance_plan`'s."""

    scale: NonNegative
    mode: GuidanceMode
    start: Fraction = 0.0


class Sample(Settings):
    """MaskGIT iterative decoding (section 3.3)."""

    steps: Positive
    gumbel_temperature: NonNegative
    schedule: Literal["cosine", "linear"] = "cosine"
    batch_size: Positive
    videos: Annotated[int, Field(ge=0)]
    int8: bool = False


class Run(Settings):
    """How the stages run; nothing here may change a result except `precision` and, in the last bits, `threads`,
    `micro_batch`, `compile` and the number of processes that `launch` starts.
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


class Audio(Settings):
    """Clip length and mel-spectrogram; every other length follows from these.

    `mel` is the recipe: HiFi-GAN's (natural logarithm) or that of the public SpecVQGAN codebook (decibels on 0..1).
    """

    mel: Literal["hifigan", "specvqgan"] = "hifigan"
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
        if self.mel == "specvqgan" and (found := self.recipe) != SPECVQGAN_RECIPE:
            raise ValueError(f"mel=specvqgan is defined for {told(SPECVQGAN_RECIPE)}; found {told(found)}")
        return self

    @property
    def recipe(self) -> dict[str, float]:
        """What a network that reads or writes mels was trained for."""
        return {name: getattr(self, name) for name in SPECVQGAN_RECIPE}

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


Fit = Literal["stretch", "clip", "crop"]
FrameRule = Literal["on_screen", "rate_filter", "timestamp"]


class Video(Settings):
    """Frame rates, square sizes and ways of fitting at which the encoders see a video.

    `frame_rule` says which frame stands for a moment, `span` whether the frames cover the token grid (`tokens`) or
    the whole `audio.duration_s` (`clip`), as upstream's features do.
    """

    sync_fps: PositiveFloat
    sync_size: Positive
    sync_fit: Fit
    semantic_fps: PositiveFloat
    semantic_size: Positive
    semantic_fit: Fit
    frame_rule: FrameRule
    span: Literal["tokens", "clip"]


class World(Settings):
    """The procedural audio-visual world: clips rendered per split."""

    train_clips: Positive
    val_clips: Positive
    test_clips: Positive
    fps: Positive


class Prepare(Settings):
    """Which clips are usable.

    `padding` is what happens to a clip of at least `min_duration_s` that is shorter than audio.duration_s: `hold` its
    last frame under silence, or `none`: it is set aside as short. `clip_timeout_s` and `clip_memory_gb` bound what
    the reading of one clip may take.
    """

    min_duration_s: PositiveFloat
    silence_db: Finite
    padding: Literal["hold", "none"]
    clip_timeout_s: PositiveFloat
    clip_memory_gb: PositiveFloat
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


class MiniVideoEncoder(Settings):
    """A small video encoder that the pipeline trains."""

    kind: Literal["mini"]
    width: Positive
    channels: Annotated[tuple[Positive, ...], Field(min_length=1)]


class MiniPromptEncoder(Settings):
    """A small encoder of sounds and texts that the pipeline trains; `blocks` of convolution over time."""

    kind: Literal["mini"]
    width: Positive
    blocks: Positive


class Synchformer(Settings):
    """Synchformer's visual features: 8 vectors for each 0.64 s of 25 fps video, every 0.32 s."""

    kind: Literal["synchformer"]
    weights: str

    @property
    def width(self) -> int:
        return 768


class DFN5BClip(Settings):
    """CLIP image embeddings (DFN5B, ViT-H/14)."""

    kind: Literal["dfn5b_clip"]
    weights: str

    @property
    def width(self) -> int:
        return 1024


class Clap(Settings):
    """CLAP embeddings of sounds and texts (LAION, HTSAT-base)."""

    kind: Literal["clap"]
    weights: str
    tokenizer: Annotated[tuple[str, ...], Field(min_length=1)]

    @property
    def width(self) -> int:
        return 512


SyncEncoder = Annotated[MiniVideoEncoder | Synchformer, Field(discriminator="kind")]
SemanticEncoder = Annotated[MiniVideoEncoder | DFN5BClip, Field(discriminator="kind")]
PromptEncoder = Annotated[MiniPromptEncoder | Clap, Field(discriminator="kind")]


class Encoders(Settings):
    """The feature encoders; `train_*` only for those that the pipeline trains.

    `max_clips` bounds what training (of the judges too) holds in memory, `batch_size` the clips encoded together.
    """

    max_clips: Positive
    batch_size: Positive
    sync: SyncEncoder
    semantic: SemanticEncoder
    prompt: PromptEncoder
    train_sync: Training | None = None
    train_semantic: Training | None = None
    train_prompt: Training | None = None

    @property
    def any_trained(self) -> bool:
        return any((self.train_sync, self.train_semantic, self.train_prompt))

    @model_validator(mode="after")
    def _check(self) -> Self:
        for role in ("sync", "semantic", "prompt"):
            kind, trained = getattr(self, role).kind, getattr(self, f"train_{role}") is not None
            if trained != (kind == "mini"):
                raise ValueError(
                    f"{role}.kind={kind} {'is not trained here: remove' if trained else 'is trained here: set'} "
                    f"train_{role}"
                )
        return self


class Codec(Settings):
    """SpecVQGAN-style tokenizer; `stem` folds stem x stem mel pixels into channels before the first level.

    With `weights` it is an official one (whose mel is audio.mel=specvqgan), otherwise the pipeline trains it.
    """

    weights: str | None = None
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


class TrainMasked(Settings):
    """Mask reconstruction, by the backbone or its control branch; every `listen_every` steps (0: never) it is heard."""

    optim: Training
    prompt_dropout: Fraction
    listen_every: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.listen_every % self.optim.validate_every:
            raise ValueError(
                f"listen_every={self.listen_every} must be a multiple of optim.validate_every="
                f"{self.optim.validate_every}: a network is heard after it is validated"
            )
        return self


class Control(Settings):
    """ControlNet branch: how many backbone blocks it copies, and the FT-Aligner's hidden width."""

    depth: Positive
    aligner_mlp_width: Positive


class GriffinLim(Settings):
    """Phase reconstruction; reads any mel."""

    kind: Literal["griffin_lim"]
    iterations: Positive
    momentum: Fraction


class NeuralVocoder(Settings):
    """An official vocoder; each kind reads one mel recipe."""

    kind: Literal["hifigan", "bigvgan", "melgan"]
    weights: str


Vocoder = Annotated[GriffinLim | NeuralVocoder, Field(discriminator="kind")]


class MiniJudges(Settings):
    """Small evaluation networks, trained apart from the generator's own encoders."""

    kind: Literal["mini"]
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


class OfficialWeights(Settings):
    weights: str


class PaperJudges(Settings):
    """The paper's judges: PaSST (FD, KL), VGGish (FAD), ImageBind (IB score), Synchformer (DeSync)."""

    kind: Literal["paper"]
    passt: OfficialWeights
    vggish: OfficialWeights
    imagebind: OfficialWeights
    synchformer: OfficialWeights


Judges = Annotated[MiniJudges | PaperJudges, Field(discriminator="kind")]


class Evaluate(Settings):
    """How systems are compared.

    `seeds` is the number of takes of every test clip, by the sampling seeds seed, seed + 1, ...; `min_coverage` the
    share of the test clips that must have a usable sound in every system.
    """

    seeds: Positive
    resamples: Annotated[int, Field(ge=0)]
    min_coverage: Fraction
    onset_tolerance_s: PositiveFloat
    pictures: Annotated[int, Field(ge=0)]


class Params(Settings):
    """Everything the pipeline can be told."""

    profile: str
    seed: Annotated[int, Field(ge=0)]
    paths: Paths
    data: Data
    fetch: Fetch
    run: Run
    weights: Weights
    cfg: Guidance
    sample: Sample
    evaluate: Evaluate
    audio: Audio
    video: Video
    world: World
    prepare: Prepare
    encoders: Encoders
    codec: Codec
    train_codec: TrainCodec | None = None
    backbone: Backbone
    train_backbone: TrainMasked
    control: Control
    train_control: TrainMasked
    vocoder: Vocoder
    judges: Judges

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
        if self.data.limit is not None and self.data.source == "world":
            raise ValueError(
                "data.limit is for recorded clips; for data.source=world set world.train_clips and its like"
            )
        if self.data.audio and self.audio.duration_s < 1:
            raise ValueError(
                f"data.audio needs audio.duration_s of at least 1, found {self.audio.duration_s:g}: parts of a sound "
                "are named by the second at which they start"
            )
        if self.data.source in ("youtube", "archive") and not self.data.lists:
            raise ValueError(f"data.lists is null, but data.source={self.data.source} needs mmaudio, or a directory")
        self._check_encoders()
        self._check_codec_and_vocoder()
        return self

    def _check_encoders(self) -> None:
        video = self.video
        views = {"sync": (video.sync_size, video.sync_fit), "semantic": (video.semantic_size, video.semantic_fit)}
        for role, view in views.items():
            kind = getattr(self.encoders, role).kind
            if kind in OFFICIAL_VIEWS and view != OFFICIAL_VIEWS[kind]:
                size, fit = OFFICIAL_VIEWS[kind]
                raise ValueError(
                    f"encoders.{role}.kind={kind} sees video.{role}_size={size}, video.{role}_fit={fit}; "
                    f"found {view[0]}, {view[1]}"
                )
        if self.encoders.sync.kind == "synchformer" and video.sync_fps != 25.0:
            raise ValueError(f"encoders.sync.kind=synchformer sees video.sync_fps=25.0; found {video.sync_fps}")

    def _check_codec_and_vocoder(self) -> None:
        codec, audio, vocoder = self.codec, self.audio, self.vocoder
        if (codec.weights is None) != (self.train_codec is not None):
            raise ValueError(
                "codec.weights and train_codec exclude each other: name the weights of an official codec, or say how "
                "to train one"
            )
        if codec.weights is not None and audio.mel != "specvqgan":
            raise ValueError(
                f"codec.weights={codec.weights}: the public codebook reads audio.mel=specvqgan, found {audio.mel}"
            )
        if vocoder.kind in VOCODER_MELS:
            mel, recipe = VOCODER_MELS[vocoder.kind]
            if (audio.mel, audio.recipe) != (mel, recipe):
                raise ValueError(
                    f"vocoder.kind={vocoder.kind} reads the {mel} mel ({told(recipe)}), but the codec's is the "
                    f"{audio.mel} mel ({told(audio.recipe)}; audio in params.yaml); choose a vocoder of that mel, or "
                    "griffin_lim"
                )
        listener = (self.encoders.prompt.kind, audio.mel)
        if self.train_codec is not None and self.train_codec.perceptual_weight and listener != ("mini", "hifigan"):
            raise ValueError(
                f"train_codec.perceptual_weight={self.train_codec.perceptual_weight} needs encoders.prompt.kind=mini "
                f"and audio.mel=hifigan, found {listener[0]} and {listener[1]}; set it to 0"
            )

    @property
    def video_duration_s(self) -> float:
        """Seconds of video that the encoders see."""
        return self.audio.token_duration_s if self.video.span == "tokens" else self.audio.duration_s

    @property
    def num_sync_frames(self) -> int:
        return round(self.video.sync_fps * self.video_duration_s)

    @property
    def num_semantic_frames(self) -> int:
        return round(self.video.semantic_fps * self.video_duration_s)

    def needed_weights(self) -> tuple[str, ...]:
        """Names in weights.lock.yaml that the active profile asks for, in the order of the settings."""
        sections = (self.encoders, self.codec, self.vocoder, self.judges)
        return tuple(dict.fromkeys(name for section in sections for name in weights_of(section)))

    @classmethod
    def load(cls, path: str | Path = "params.yaml", profile: str | None = None) -> Params:
        """Read and check params.yaml, with another profile than it names if one is given.

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
        if profile is not None and isinstance(raw, dict):
            raw = raw | {"profile": profile}
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
        merged = _tuples({**base, **profiles[profile]})
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise ValueError(_explain(error, where, merged, set(profiles[profile]), str(profile))) from None

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


OFFICIAL_VIEWS: dict[str, tuple[int, Fit]] = {"synchformer": (224, "crop"), "dfn5b_clip": (384, "clip")}
VOCODER_MELS = {
    "hifigan": ("hifigan", HIFIGAN_RECIPE),
    "bigvgan": ("hifigan", HIFIGAN_RECIPE),
    "melgan": ("specvqgan", SPECVQGAN_RECIPE),
}


_WHEN = {"checkpoint_every", "validate_every", "listen_every"}


def matters(section: BaseModel) -> Any:
    """A section's settings without those that only say when something is kept or looked at."""
    return _without(section.model_dump(mode="json"), _WHEN)


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, names) for key, item in value.items() if key not in names}
    return value


def weights_of(section: BaseModel) -> list[str]:
    """Names in weights.lock.yaml that a section of the settings asks for."""
    return _weights_of(section.model_dump())


def _weights_of(value: Any) -> list[str]:
    """Every `weights` and every `tokenizer` file in a section."""
    if not isinstance(value, dict):
        return []
    own = [value["weights"]] if value.get("weights") else []
    return [*own, *value.get("tokenizer", ()), *(name for item in value.values() for name in _weights_of(item))]


def _tuples(value: Any) -> Any:
    """YAML has lists only; strict checking wants tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _explain(error: ValidationError, where: str, raw: dict[str, Any], in_profile: set[str], profile: str) -> str:
    lines = []
    for item in error.errors():
        keys = _without_tags(raw, item["loc"])
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


def _without_tags(raw: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys of a place in params.yaml: pydantic puts the `kind` of a union between them."""
    keys = []
    for part in location:
        if isinstance(raw, dict) and part not in raw and raw.get("kind") == part:
            continue
        keys.append(str(part))
        raw = raw.get(part) if isinstance(raw, dict) else None
    return keys
