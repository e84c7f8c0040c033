"""Model weights (safetensors with their settings) and training states (to resume after a kill)."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from specmaskfoley.storage.files import atomic_path, refuse_pointer

Described = BaseModel | int | str | list[str]
_SETTINGS = "settings"


def save_model(path: str | Path, module: nn.Module, **settings: Described) -> None:
    """Write weights and the settings that built the module into one safetensors file."""
    described = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in settings.items()
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    with atomic_path(path) as temporary:
        # One entry: safetensors writes several in random order, and equal models must be equal files.
        save_file(tensors, temporary, metadata={_SETTINGS: json.dumps(described)})


def load_model(path: str | Path, module: nn.Module, **settings: Described) -> None:
    """Load weights strictly into a module built from the same settings.

    Raises:
        ValueError: the file is missing, damaged, or was made with other settings (which are named).
    """
    with _opened(path) as file:
        found = _settings(file, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    for name, value in settings.items():
        wanted = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        if name not in found:
            raise ValueError(f"{path}: does not say its {name}; it is not a model of this pipeline")
        if found[name] != wanted:
            raise ValueError(
                f"{path}: was made with {name}={json.dumps(found[name])}, but params.yaml now says "
                f"{json.dumps(wanted)}; run `dvc repro` to make it again, or restore the setting"
            )
    module.load_state_dict(tensors)


def read_setting(path: str | Path, name: str) -> Any:
    """One of the settings a model file was saved with.

    Raises:
        ValueError: the file is missing, damaged, or lacks this setting.
    """
    with _opened(path) as file:
        found = _settings(file, path)
    if name not in found:
        raise ValueError(f"{path}: does not say its {name}; it is not a model of this pipeline")
    return found[name]


def _settings(file: Any, path: str | Path) -> dict[str, Any]:
    try:
        found = json.loads((file.metadata() or {}).get(_SETTINGS, "{}"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: damaged settings ({error}); delete it and run `dvc repro`") from None
    return found if isinstance(found, dict) else {}


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    again = "run `dvc repro`" if Path("dvc.yaml").exists() else "get the model again"  # an exported one has no stages
    if not Path(path).exists():
        raise ValueError(f"{path}: no such model; {again}")
    refuse_pointer(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); delete it and {again}") from None


KEPT = 2


class TrainingStates:
    """The newest states of one training, `<name>-<steps done>.pt`: several, so that a damaged one costs little work.

    Args:
        keep: how many; older ones are removed.
    """

    def __init__(self, folder: Path, name: str, keep: int = KEPT) -> None:
        self._folder, self._name, self._keep = folder, name, keep

    @property
    def newest(self) -> Path | None:
        """The file of the newest state."""
        return next(iter(self._files()), None)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a state of tensors and plain values, whole or not at all.

        Raises:
            ValueError: it cannot be written, on a full disk for example; earlier states are kept.
        """
        self._write(self._folder / f"{self._name}-{step:08d}.pt", state)
        for old in self._files()[self._keep :]:
            old.unlink()

    def save_best(self, state: dict[str, Any]) -> None:
        """Write the best state so far, beside the newest ones; it replaces the best one before it."""
        self._write(self._best, state)

    def load_best(self) -> dict[str, Any] | None:
        """The best state, or None if there is none.

        Raises:
            ValueError: it cannot be read.
        """
        if not self._best.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._best, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
            raise ValueError(f"{self._best}: damaged checkpoint ({_first_line(error)})") from None
        return state

    @property
    def _best(self) -> Path:
        return self._folder / f"{self._name}-best.pt"

    def _write(self, path: Path, state: dict[str, Any]) -> None:
        try:
            with atomic_path(path) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            kept = f"the newest before it, {self.newest}, is kept" if self.newest else "there is none before it"
            raise ValueError(
                f"{path}: this checkpoint cannot be written ({_first_line(error)}); {kept}. Make room, then run "
                "`dvc repro`: training goes on from there"
            ) from None

    def load(self) -> dict[str, Any] | None:
        """The newest state that can be read, or None if there is none yet. Damaged newer ones are reported and renamed.

        Raises:
            ValueError: there are states, and none can be read.
        """
        damaged: dict[Path, str] = {}
        for path in self._files():
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
                damaged[path] = f"{path}: damaged checkpoint ({_first_line(error)})"
                continue
            for other, line in damaged.items():
                os.replace(other, other.with_name(f"{other.name}.damaged"))
                print(f"{self._name}: {line}; set aside, going on from the one before", flush=True)
            return state
        if damaged:
            raise ValueError(f"{'; '.join(damaged.values())}; delete what is damaged to train from the start")
        return None

    def _files(self) -> list[Path]:
        """The newest first."""
        return sorted(self._folder.glob(f"{self._name}-????????.pt"), reverse=True)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
