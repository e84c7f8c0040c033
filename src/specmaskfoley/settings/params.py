"""params.yaml as a whole: profiles merged in, sections checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from specmaskfoley.settings.base import Settings
from specmaskfoley.settings.data import Data, Fetch, Paths, Prepare, Weights, World
from specmaskfoley.settings.encoders import Encoders
from specmaskfoley.settings.generator import (
    DISCRIMINATOR_FRAMES,
    Backbone,
    Codec,
    Control,
    TrainCodec,
    TrainMasked,
    Vocoder,
)
from specmaskfoley.settings.judges import Evaluate, Judges
from specmaskfoley.settings.media import HIFIGAN_RECIPE, SPECVQGAN_RECIPE, Audio, Fit, TokenGrid, Video, recipe_text
from specmaskfoley.settings.reading import parse_yaml
from specmaskfoley.settings.run import Run
from specmaskfoley.settings.sampling import Decoding, Guidance, Sample, Sampling


class Params(Settings):
    """All settings of the pipeline."""

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
    train_backbone: TrainMasked | None = None
    control: Control
    train_control: TrainMasked
    vocoder: Vocoder | None = None
    judges: Judges

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.control.depth > self.backbone.depth:
            raise ValueError(
                f"control.depth={self.control.depth} copies more blocks than backbone.depth={self.backbone.depth}"
            )
        grid = self.codec.grid(self.audio)
        levels = self.backbone.levels
        if levels not in (1, grid.rows):
            raise ValueError(f"backbone.codebooks={levels}, but the codec has {grid.rows}")
        if not self.codec.bands and levels == 1:
            raise ValueError(
                f"backbone.kind={self.backbone.kind} reads tokens of a spectrogram, codec.kind={self.codec.kind} makes "
                "none: choose another of the two"
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
        if self.data.audio and not self.encoders.prompt.hears:
            raise ValueError(
                f"data.audio needs a prompt encoder that hears, but encoders.prompt.kind={self.encoders.prompt.kind} "
                "embeds texts alone; set data.audio to []"
            )
        if self.data.source in ("youtube", "archive") and not self.data.lists:
            raise ValueError(f"data.lists is null, but data.source={self.data.source} needs mmaudio, or a directory")
        self._check_encoders()
        self._check_codec_and_vocoder()
        self._check_backbone()
        return self

    def _check_backbone(self) -> None:
        if (self.backbone.weights is None) != (self.train_backbone is not None):
            raise ValueError(
                "backbone.weights and train_backbone exclude each other: name the weights of an official backbone, or "
                "say how to train one"
            )
        prompt = self.encoders.prompt
        if len(prompt.shape) > 1 and self.backbone.levels == 1:
            raise ValueError(
                f"backbone.kind={self.backbone.kind} takes one vector as prompt, but encoders.prompt.kind="
                f"{prompt.kind} makes one for each word"
            )
        if self.cfg.mode == "audio" and not prompt.hears:
            raise ValueError(
                f"cfg.mode=audio needs a prompt encoder that hears; encoders.prompt.kind={prompt.kind} is none"
            )
        read = self.backbone.decides_by
        for name in ("gumbel_temperature", "schedule", "temperature", "top_p"):
            value = getattr(self.sample, name)
            if (value is not None) != (name in read):
                needs, unread = f"needs sample.{name}", f"does not read sample.{name}={value}: set it to null"
                raise ValueError(f"backbone.kind={self.backbone.kind} {needs if name in read else unread}")
        try:
            self.sample.steps_of(self.backbone.levels)
        except ValueError as error:
            raise ValueError(f"sample.{error}") from None

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
        if (train := self.train_codec) is not None and train.adversarial_weight:
            frames = min(train.crop_columns, self.grid.columns) * (self.grid.step // audio.hop_length)
            if frames < DISCRIMINATOR_FRAMES:
                raise ValueError(
                    f"train_codec.crop_columns={train.crop_columns} of {self.grid.columns} token columns are {frames} "
                    f"mel frames, too few for a discriminator, which judges {DISCRIMINATOR_FRAMES} at least: train on "
                    "longer crops, or with adversarial_weight=0"
                )
        if (vocoder is not None) != codec.mel:
            does = "makes a mel: name a vocoder" if codec.mel else "makes samples itself: set vocoder to null"
            raise ValueError(f"codec.kind={codec.kind} {does}")
        if vocoder is not None and vocoder.kind in VOCODER_MELS:
            mel, recipe = VOCODER_MELS[vocoder.kind]
            if (audio.mel, audio.recipe) != (mel, recipe):
                raise ValueError(
                    f"vocoder.kind={vocoder.kind} reads the {mel} mel ({recipe_text(recipe)}), but the codec's is the "
                    f"{audio.mel} mel ({recipe_text(audio.recipe)}; audio in params.yaml); choose a vocoder of "
                    "that mel, or griffin_lim"
                )

    @property
    def grid(self) -> TokenGrid:
        """The tokens of a clip."""
        return self.codec.grid(self.audio)

    @property
    def video_duration_s(self) -> float:
        """Seconds of video that the encoders see."""
        return self.audio.token_duration_s if self.video.span == "tokens" else self.audio.duration_s

    @property
    def num_sync_frames(self) -> int:
        return round(self.video.sync_fps * self.video_duration_s)

    @property
    def sync_features_s(self) -> list[float]:
        """Seconds of the middle of what each sync feature shows."""
        return self.encoders.sync.times_s(self.num_sync_frames, self.video.sync_fps)

    @property
    def num_semantic_frames(self) -> int:
        return round(self.video.semantic_fps * self.video_duration_s)

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn, by `seed`, `sample` and `cfg`."""
        decoding = {name: getattr(self.sample, name) for name in Decoding.model_fields}
        return Sampling(seed=self.seed, **decoding, **dict(self.cfg))

    def needed_weights(self) -> tuple[str, ...]:
        """Names in weights.lock.yaml that the active profile asks for, in the order of the settings."""
        sections = (self.encoders, self.codec, self.backbone, self.vocoder, self.judges)
        return tuple(dict.fromkeys(name for section in sections for name in weights_of(section)))

    @classmethod
    def load(cls, path: str | Path = "params.yaml", profile: str | None = None) -> Params:
        """Read and check params.yaml, with another profile than it names if one is given.

        Raises:
            ValueError: naming the setting, its value and what was expected.
        """
        path = Path(path)
        try:
            raw = parse_yaml(path.read_text(encoding="utf-8"))
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
        twice = sorted(set(base) & set(profiles[profile]) - set(OVERRIDING))
        if twice:
            raise ValueError(f"{where}: {', '.join(twice)} set both at the top level and in profiles.{profile}")
        merged = {**base, **profiles[profile]}
        for section in OVERRIDING:
            if isinstance(merged.get(section), dict) and isinstance(base.get(section), dict):
                given = {key: value for key, value in base[section].items() if value is not None}
                merged[section] = merged[section] | given
        merged = _tuples(merged)
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise ValueError(_explain(error, where, merged, base, str(profile))) from None

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


OVERRIDING = ("cfg", "sample")
"""Sections that a profile has and the top level may override, value by value; null there: the profile's."""

IRRELEVANT = ("paths.", "fetch.", "weights.", "run.")
"""Beginnings of the names of settings by which two experiments do not differ."""

OFFICIAL_VIEWS: dict[str, tuple[int, Fit]] = {"synchformer": (224, "crop"), "dfn5b_clip": (384, "clip")}
VOCODER_MELS = {
    "hifigan": ("hifigan", HIFIGAN_RECIPE),
    "bigvgan": ("hifigan", HIFIGAN_RECIPE),
    "melgan": ("specvqgan", SPECVQGAN_RECIPE),
}


def in_force(settings: Mapping[str, object], profile: object) -> dict[str, object]:
    """Settings by dotted name, as params.yaml or dvc.lock has them, without what another value overrides."""
    found = dict(settings)
    prefix = f"profiles.{profile}."
    for name, value in settings.items():
        own = name.removeprefix(prefix)
        if name.startswith(prefix) and own.startswith(tuple(f"{section}." for section in OVERRIDING)):
            found[own] = value if found.get(own) is None else found[own]
            del found[name]
    return found


def weights_of(section: BaseModel | None) -> list[str]:
    """Names in weights.lock.yaml that a section of the settings asks for."""
    return _weights_of(section.model_dump()) if section is not None else []


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


def _explain(error: ValidationError, where: str, raw: dict[str, Any], top: dict[str, Any], profile: str) -> str:
    """The problems, a line each, under the names that params.yaml has for them.

    Args:
        raw: the settings with the profile merged in; top: the top level alone.
    """
    lines = []
    for item in error.errors():
        keys = _without_tags(raw, item["loc"])
        name = ".".join(([] if _at_top(top, keys, raw) else [f"profiles.{profile}"]) + keys)
        if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            lines.append(f"{where}: {name} is not a known setting; check its spelling")
        elif item["type"] in ("missing", "missing_argument"):
            lines.append(f"{where}: {name} is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(item["input"], dict) else f"={item['input']!r}"
            lines.append(f"{where}: {name}{shown}: {message}" if name else f"{where}: {message}")
    return "\n".join(lines)


def _at_top(top: dict[str, Any], keys: list[str], raw: dict[str, Any]) -> bool:
    """Whether a setting is at the top level, rather than in the profile."""
    if not keys or keys[0] not in raw:
        return True
    section = top.get(keys[0])
    if keys[0] not in OVERRIDING or len(keys) == 1:
        return keys[0] in top
    return isinstance(section, dict) and section.get(keys[1]) is not None


def _without_tags(raw: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys of a place in params.yaml: pydantic puts the `kind` of a union between them."""
    keys = []
    for part in location:
        if isinstance(raw, dict) and part not in raw and raw.get("kind") == part:
            continue
        keys.append(str(part))
        raw = raw.get(part) if isinstance(raw, dict) else None
    return keys
