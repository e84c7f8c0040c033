"""The settings that a command is given."""

from __future__ import annotations

import os
from pathlib import Path

from specmaskfoley.settings import Params


def enter(params_file: Path, profile: str | None = None) -> Params:
    """Read params.yaml, and make its folder the current one: all paths in it count from there.

    Raises:
        ValueError: naming the setting, its value and what was expected.
    """
    params = Params.load(params_file, profile)
    os.chdir(params_file.absolute().parent)  # unresolved: in a model hub's cache the file is a link
    return params


def model_source(model: Path | None, params_file: Path) -> Path:
    """Where the model of a command is: the folder that --model names, or the settings of a project.

    Raises:
        ValueError: there is none.
    """
    if model is None:
        if not params_file.exists():
            raise ValueError(
                f"--params {params_file}: no such file; run from the project's top directory, or name a model's folder "
                "with --model"
            )
        return params_file
    if model.is_dir() and (model / "params.yaml").is_file():
        return model
    problem = "has no params.yaml" if model.is_dir() else "is a file" if model.exists() else "no such folder"
    raise ValueError(f"--model {model}: {problem}; name a folder that `specmaskfoley export` wrote")
