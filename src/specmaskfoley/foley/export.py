"""A trained model as a folder of its own: weights, settings and a model card; and what a model consists of."""

from __future__ import annotations

import contextlib
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specmaskfoley.foley.knowledge import SOUNDS_FILE, Knowledge
from specmaskfoley.settings import MiniJudges, Params, weights_of
from specmaskfoley.settings.reading import parse_yaml
from specmaskfoley.storage.files import atomic_path, refuse_pointer, sha256
from specmaskfoley.weights.loading import find_weights
from specmaskfoley.weights.lock import LOCK_FILE, WeightFile, locked, read_lock
from specmaskfoley.weights.records import record_path

if TYPE_CHECKING:
    from specmaskfoley.report.results import Evaluation

_ENCODERS = ("sync", "semantic", "prompt")
"""As `encoders.trained.ROLES`, which would import torch: that takes seconds, and naming files does not need it."""
_SHOWN = ("specmaskfoley", "torch", "torchaudio", "av", "numpy")


def trained_files(params: Params) -> dict[str, Path]:
    """The files that make sounds and the pipeline trained: name in an exported folder -> path."""
    files = {f"{role}.safetensors": Path(getattr(params.paths, role)) for role in ("codec", "backbone", "control")}
    return files | {
        f"encoders/{role}.safetensors": Path(params.paths.encoders) / f"{role}.safetensors"
        for role in _ENCODERS
        if getattr(params.encoders, role).kind == "mini"
    }


def judge_files(params: Params) -> dict[str, Path]:
    """The judges that the pipeline trained, likewise."""
    return {"judges.safetensors": Path(params.paths.judges)} if isinstance(params.judges, MiniJudges) else {}


def model_identity(params: Params) -> dict[str, str]:
    """What makes sounds: file or entry of weights.lock.yaml -> SHA-256, or another checksum of the lock."""
    names = [
        name for part in (params.encoders, params.codec, params.backbone, params.vocoder) for name in weights_of(part)
    ]
    return _identity(trained_files(params), names)


def judges_identity(params: Params) -> dict[str, str]:
    """What ranks candidates, likewise."""
    return _identity(judge_files(params), weights_of(params.judges))


def _identity(files: Mapping[str, Path], names: Sequence[str]) -> dict[str, str]:
    identity = {}
    for name, path in files.items():
        _check_exists(path)
        identity[name] = sha256(path)
    lock = read_lock() if names else {}
    for name in names:
        kind, digest = next(iter(locked(name, lock).digests.items()), ("file", locked(name, lock).file))
        identity[name] = digest if kind == "sha256" else f"{kind}:{digest}"
    return identity


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path}: no such model; `dvc repro` makes it")
    refuse_pointer(path)


def versions() -> dict[str, str]:
    """Of Python and of the libraries that decide the samples of a sound."""
    return {"python": platform.python_version(), **{name: version(name) for name in _SHOWN}}


def export_model(params_file: Path, target: Path) -> list[Path]:
    """Write the model of a project into a new folder that `Foley.load` reads without anything else.

    Official weights that a sound takes are copied, too; the card names the licences of all.

    Returns:
        The files, relative to `target`.

    Raises:
        ValueError: the folder is not empty, or the model is not complete.
    """
    import yaml

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target}: is there already and not an empty folder; choose another name")
    target = target.resolve()
    params = Params.load(params_file)
    raw = parse_yaml(params_file.read_text(encoding="utf-8"))
    with contextlib.chdir(params_file.absolute().parent):  # paths in params.yaml count from its own folder
        official = _official(params)
        copies = trained_files(params) | judge_files(params)
        for path in copies.values():
            _check_exists(path)
        folder = Path(params.weights.folder)
        for name in official.keys() - _converted(params):
            path = find_weights(name, params)
            for file in filter(Path.exists, (path, record_path(path))):
                copies[f"weights/{file.relative_to(folder).as_posix()}"] = file
        if official:
            copies[LOCK_FILE] = Path(LOCK_FILE)
        for name, path in copies.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target / name) as temporary:
                shutil.copy2(path, temporary)
        evaluation, knowledge = _evaluation(params), Knowledge.of(params)
    settings = "# The settings that this model was trained with; paths count from this folder.\n" + yaml.safe_dump(
        _settings(raw, params), sort_keys=False, allow_unicode=True
    )
    texts = {"params.yaml": settings, "README.md": model_card(params, official, evaluation, knowledge.words)}
    if knowledge.words:
        texts[SOUNDS_FILE] = "".join(f"{word}\n" for word in knowledge.words)
    for name, text in texts.items():
        with atomic_path(target / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return sorted(Path(name) for name in (*copies, *texts))


def model_card(
    params: Params, official: dict[str, WeightFile], evaluation: Evaluation | None, sounds: Sequence[str]
) -> str:
    """A card as model hubs show it: what the model is, what it was trained on, how good it is, licences.

    Args:
        evaluation: None where there is none.
        sounds: the labels of the training clips; empty where they are not known.
    """
    return "\n".join(_card(params, official, evaluation, sounds)) + "\n"


def _card(
    params: Params, official: dict[str, WeightFile], evaluation: Evaluation | None, sounds: Sequence[str]
) -> Iterator[str]:
    licence = "mit" if all(entry.licence == "MIT" for entry in official.values()) else "other"
    yield from ("---", f"license: {licence}", "library_name: specmaskfoley", "tags: [video-to-audio, foley]", "---", "")
    yield f"# SpecMaskFoley, profile `{params.profile}`"
    what = "spectrogram" if params.codec.mel else "waveform"
    yield from ("", f"Sound for silent video: a masked generative Transformer over {what} tokens, steered by a control")
    yield "branch that reads the video. Made by the pipeline of the package `specmaskfoley`."
    yield from ("", "    specmaskfoley generate clip.mp4 --text 'hammering nail' --out results --model THIS_FOLDER", "")
    audio = params.audio
    top_hz = audio.fmax if params.codec.mel else audio.sample_rate / 2
    yield (
        f"{audio.sample_rate} Hz, mono, sound up to {top_hz / 1000:g} kHz, in windows of "
        f"{audio.token_duration_s:.2f} s."
    )
    yield from ("", "## Training data", "", _data(params))
    if sounds:
        yield from ("", "## Sounds", "", f"The labels of the training clips, {len(sounds)}: {', '.join(sounds)}.")
    yield from ("", "## Metrics", "")
    if evaluation is not None:
        from specmaskfoley.report.tables import markdown_scores  # and with it the experiments: not to make a sound

        yield f"On the test split, by the judges of the profile ({params.judges.kind}); to be compared with each other."
        yield from evaluation.clips.warnings
        yield from ("", markdown_scores(evaluation.scores, ranked=evaluation.clips.ranked))
    else:
        yield "Not evaluated."
    yield from ("", "## Licences", "")
    yield "The weights that the pipeline trained (`*.safetensors`): MIT, as far as the training data allow."
    for role in ("codec", "backbone"):
        if name := getattr(params, role).weights:
            yield f"- `{role}.safetensors` holds the official weights {name}, and falls under their licence."
    if name := params.backbone.weights:
        yield f"- `control.safetensors` began as a copy of blocks of {name}, and falls under its licence."
    converted = _converted(params)
    for name, entry in official.items():
        use = {"forbidden": "; NOT for commercial use", "see_licence": "", "allowed": ""}[entry.commercial]
        where = name if name in converted else f"`weights/{entry.file}` ({name})"
        yield f"- {where}: {entry.licence}{use}; {entry.page}"
        if entry.note:
            yield f"  {entry.note}"
    yield from ("", "## Limits", "")
    if params.data.source == "world":
        yield "It has only ever seen drawn scenes: expect their sounds at the moments something moves."
    else:
        yield "It makes the sounds it was trained on; speech and music are not among what it is meant for."


def _converted(params: Params) -> set[str]:
    """Official weights that stages `codec` and `backbone` have put into files of their own."""
    return {*weights_of(params.codec), *weights_of(params.backbone)}


def _data(params: Params) -> str:
    data, world = params.data, params.world
    if data.source == "world":
        return (
            f"{world.train_clips} clips of {params.audio.duration_s:g} s of a procedural audio-visual world (seed "
            f"{params.seed}), rendered by the pipeline: no third-party data."
        )
    limit = data.limit_of("train")
    most = f", at most {limit} training clips" if limit else ""
    what = f"the lists `{data.lists}`" if data.listed else f"the folder `{Path(data.folder or '').name}`"
    return f"Videos of {what} (source `{data.source}`{most}). The rights in them are their makers'."


def _settings(raw: dict[str, Any], params: Params) -> dict[str, Any]:
    """params.yaml with the one profile, and paths inside the folder."""
    paths = dict.fromkeys(raw["paths"], "not_exported") | {
        "encoders": "encoders",
        **{role: f"{role}.safetensors" for role in ("codec", "backbone", "control", "judges")},
    }
    weights = {**raw["weights"], "folder": "weights", "bundle": None}
    return {**raw, "paths": paths, "weights": weights, "profiles": {params.profile: raw["profiles"][params.profile]}}


def _official(params: Params) -> dict[str, WeightFile]:
    names = params.needed_weights()
    lock = read_lock() if names else {}
    return {name: locked(name, lock) for name in names}


def _evaluation(params: Params) -> Evaluation | None:
    from specmaskfoley.report.results import read_folder

    folder = Path(params.paths.metrics)
    return read_folder(folder) if (folder / "clips.json").exists() else None
