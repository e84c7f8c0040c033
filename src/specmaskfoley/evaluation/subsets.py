"""Test clips of VGGSound that suit video-to-audio, by VGGSounder's annotations (arXiv 2508.08237)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def vggsounder_clips(labels: Mapping[str, str]) -> frozenset[str]:
    """Those of the given clips whose VGGSound class VGGSounder's annotators both heard and saw.

    Left out with clips that lack the class, or have it only as sound or only as picture: clips with background music or
    voice-over, whose sound does not follow from the picture, those that show a static image, and those without
    annotations. Of VGGSound's test split (15,221 clips in MMAudio's list) version 1.0 of the annotations keeps 5,566.
    The annotations come with the package; nothing is downloaded.

    Args:
        labels: clip (`{youtube_id}_{start:06d}`, 18 characters) -> VGGSound class. VGGSounder does not say which of its
            classes was VGGSound's, so the caller does.
    """
    try:
        package: Any = importlib.import_module("vggsounder")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"VGGSounder's subset needs the package vggsounder, and {error.name} is not installed: "
            "run pip install -e '.[paper]'"
        ) from error
    annotated = package.VGGSounder(modality="AV", background_music=False, voice_over=False, static_image=False)
    # Another spelling of the classes would look like a small subset.
    unknown = sorted(set(labels.values()).difference(annotated.get_all_labels()))
    if unknown:
        raise ValueError(f"labels {unknown[:3]} (of {len(unknown)}) are no classes of VGGSound")
    return frozenset(clip for clip, label in labels.items() if clip in annotated and label in annotated[clip].labels)
