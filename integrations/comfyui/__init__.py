"""SpecMaskFoley in ComfyUI: link or copy this folder into ComfyUI/custom_nodes (docs/integrations.md).

IMAGE is a float tensor (frames, height, width, channels), AUDIO a dictionary with `waveform`, float
(1, channels, samples), and `sample_rate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from specmaskfoley.device import set_deterministic, start_device
from specmaskfoley.foley import Foley, Take
from specmaskfoley.foley.prompts import parse_texts

_MODEL, _CATEGORY = "SPECMASKFOLEY_MODEL", "audio/SpecMaskFoley"
_PROMPT = {
    "model": (_MODEL, {"tooltip": "Of the node that loads it."}),
    "text": (
        "STRING",
        {
            "default": "", "multiline": True,
            "tooltip": "What is to be heard, such as: playing drum. Or parts, a line each, such as: 0-3: footsteps",
        },
    ),
    "negative": ("STRING", {"default": "", "tooltip": "What is not to be heard; every step then takes longer."}),
    "seed": (
        "INT",
        {"default": 0, "min": 0, "max": 2**32 - 1, "control_after_generate": True, "tooltip": "Another take."},
    ),
    "steps": ("INT", {"default": 0, "min": 0, "max": 1000, "tooltip": "Of decoding; 0: as many as the model's own."}),
    "cfg_scale": (
        "FLOAT",
        {
            "default": -1.0, "min": -1.0, "max": 100.0, "step": 0.1,
            "tooltip": "How much text and video steer the sound; below 0: the model's own.",
        },
    ),
}  # fmt: skip


class LoadModel:
    DESCRIPTION = "Loads a model that makes sound for video."
    CATEGORY = _CATEGORY
    RETURN_TYPES = (_MODEL, "STRING")
    RETURN_NAMES = ("model", "sounds")
    OUTPUT_TOOLTIPS = ("The model.", "The sounds that it knows.")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802, ComfyUI's name
        folder = {"default": "", "tooltip": "Of `specmaskfoley export`, or of a project whose pipeline has run."}
        return {"required": {"folder": ("STRING", folder)}}

    def load(self, folder: str) -> tuple[Foley, str]:
        if not folder.strip():
            raise ValueError("folder: name the folder of a model")
        with _torch_as_before():
            foley = Foley.load(folder.strip())
        return foley, foley.knowledge.sentence


class SoundForVideo:
    DESCRIPTION = "Makes the sound of a video, given as images with their rate, or as a video."
    CATEGORY = _CATEGORY
    RETURN_TYPES = ("AUDIO", "STRING")
    RETURN_NAMES = ("audio", "said")
    OUTPUT_TOOLTIPS = ("The sound, as long as the video; of several takes the best.", "What is said of it.")
    FUNCTION = "generate"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        takes = {"default": 1, "min": 1, "max": 16, "tooltip": "How many are made; the judges choose among several."}
        return {
            "required": {**_PROMPT, "takes": ("INT", takes)},
            "optional": {
                "images": ("IMAGE", {"tooltip": "The frames of the video, in place of `video`."}),
                "fps": ("FLOAT", {"default": 25.0, "min": 0.01, "max": 1000.0, "step": 0.01, "tooltip": "Of images."}),
                "video": ("VIDEO", {"tooltip": "In place of `images`."}),
            },
        }

    def generate(
        self, images: torch.Tensor | None = None, fps: float = 25.0, video: Any = None, **wanted: Any
    ) -> tuple[dict[str, Any], str]:
        if (images is None) == (video is None):
            raise ValueError("connect either images or video")
        if images is None:
            parts = video.get_components()
            images, fps = parts.images, parts.frame_rate
        # Upscalers and generators may leave 0..1 a little; the fourth channel is transparency.
        frames = (image[..., :3].clamp(0, 1) for image in images)
        return _made(video=frames, fps=fps, **wanted)


class SoundFromText:
    DESCRIPTION = "Makes a sound from words alone."
    CATEGORY = _CATEGORY
    RETURN_TYPES = ("AUDIO", "STRING")
    RETURN_NAMES = ("audio", "said")
    OUTPUT_TOOLTIPS = ("The sound.", "What is said of it.")
    FUNCTION = "generate"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        seconds = {"default": 5.0, "min": 0.1, "max": 3600.0, "step": 0.1, "tooltip": "How long the sound is."}
        return {"required": {**_PROMPT, "seconds": ("FLOAT", seconds)}}

    def generate(self, seconds: float, **wanted: Any) -> tuple[dict[str, Any], str]:
        return _made(duration_s=seconds, **wanted)


NODE_CLASS_MAPPINGS = {
    "SpecMaskFoleyLoadModel": LoadModel,
    "SpecMaskFoleySoundForVideo": SoundForVideo,
    "SpecMaskFoleySoundFromText": SoundFromText,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "SpecMaskFoleyLoadModel": "SpecMaskFoley: load model",
    "SpecMaskFoleySoundForVideo": "SpecMaskFoley: sound for video",
    "SpecMaskFoleySoundFromText": "SpecMaskFoley: sound from text",
}


def _made(
    model: Foley, text: str, negative: str, seed: int, steps: int, cfg_scale: float, takes: int = 1, **source: Any
) -> tuple[dict[str, Any], str]:
    """The best take as AUDIO, and what is said of all.

    Args:
        source: the video, or the duration, as `Foley.generate` takes it.
    """
    sampling: dict[str, Any] = {"seed": seed}
    if steps > 0:
        sampling["steps"] = steps
    if cfg_scale >= 0:
        sampling["scale"] = cfg_scale
    with _torch_as_before():
        start_device(model.params.run)
        made = model.generate(
            **source, text=parse_texts([text]), negative=negative, candidates=takes, progress=_progress(), **sampling,
        )  # fmt: skip
    waveform = torch.from_numpy(np.array(made[0].waveform))  # no longer in the take's temporary file
    audio = {"waveform": waveform[None, None], "sample_rate": made[0].sample_rate}
    return audio, "\n".join(_said(made))


def _said(takes: list[Take]) -> Iterator[str]:
    if remark := takes[0].record["knowledge"]["remark"]:
        yield remark
    yield takes[0].level.sentence
    for number, take in enumerate(takes, start=1):
        if take.verdict is not None:
            yield " ".join(filter(None, (f"{number}. seed {take.seed}: {take.verdict.scores}", take.verdict.place)))


def _progress() -> Callable[[float, str], None] | None:
    """Moves the bar of the node, and ends the work once the user cancels it; None: not inside ComfyUI."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar
    except ModuleNotFoundError:
        return None
    bar = ProgressBar(100)

    def report(share: float, message: str) -> None:
        throw_exception_if_processing_interrupted()
        bar.update_absolute(round(100 * share))

    return report


@contextmanager
def _torch_as_before() -> Iterator[None]:
    """A model sets torch's threads and determinism; the other nodes get theirs back."""
    threads, on = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        set_deterministic(on, warn_only=warn_only)
