"""A project of a profile with official networks, on real clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from helpers.golden_rule import Golden
from helpers.official_files import write_lock, write_official
from helpers.tiny import Project

SEMANTIC_FRAMES = 2
"""CLIP takes 4 s and more a frame on two cores."""

Change = Callable[[dict[str, Any]], None]


def real_project(
    root: Path,
    profile: str,
    rows: Mapping[str, tuple[Path, str, str]],
    weights: list[str],
    golden: Golden,
    more: Change,
) -> Project:
    """
    Args:
        rows: id -> video, label, split.
        weights: entries of weights.lock.yaml, written by rule; CLIP sees fewer frames than the profile says.
        more: changes of params.yaml.
    """
    folder, bundle = root / "clips", root / "bundle"
    folder.mkdir()
    for name, (video, _, _) in rows.items():
        (folder / f"{name}.mp4").symlink_to(video)
    lines = ["id\tlabel\tsplit", *(f"{name}\t{label}\t{split}" for name, (_, label, split) in rows.items())]
    (folder / "labels.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_official(weights, bundle, golden)

    def change(params: dict[str, Any]) -> None:
        params["profile"] = profile
        params["data"] |= {"source": "folder", "folder": str(folder), "labels": str(folder / "labels.tsv")}
        params["run"]["threads"] = 2
        params["weights"]["bundle"] = str(bundle)
        params["profiles"][profile]["encoders"]["batch_size"] = 1  # batches are filled up
        params["profiles"][profile]["video"]["semantic_fps"] = SEMANTIC_FRAMES / 10
        more(params)

    project = Project.create(root / "project", change)
    write_lock(project.path("weights.lock.yaml"))
    return project


def without_judges(params: dict[str, Any]) -> None:
    """Those trained here instead: the official files are large, and scoring takes minutes."""
    params["profiles"][params["profile"]]["judges"] = params["profiles"]["mini"]["judges"]
