"""weights.lock.yaml as typed entries: the official weight files, where they come from, and their checksums."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from specmaskfoley.settings import Settings
from specmaskfoley.settings.reading import parse_yaml

LOCK_FILE = "weights.lock.yaml"


class HubFile(Settings):
    """A file of a repository on the Hugging Face hub."""

    repo: str
    revision: str
    file: str


class WeightFile(Settings):
    """One official file; the fields are explained at the top of weights.lock.yaml.

    `sha256` may be its first digits only, as in the names that torch.hub gives to files.
    """

    role: str
    file: str
    url: str | None = None
    hub: HubFile | None = None
    by_hand: str | None = None
    size: Annotated[int, Field(gt=0)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] | None = None
    md5: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    git_sha1: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    kind: Literal["weights", "text"] = "weights"
    member: str | None = None
    entry: str | None = None
    allow: list[str] = Field(default_factory=list)
    licence: str
    commercial: Literal["allowed", "forbidden", "see_licence"]
    note: str = ""
    page: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.url, self.hub, self.by_hand).count(None) != 2:
            raise ValueError("needs exactly one of url, hub and by_hand")
        path = PurePosixPath(self.file)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"file={self.file!r} must lie under weights.folder")
        return self

    @property
    def address(self) -> str | None:
        """Where to download it, or None if that takes a person."""
        if self.hub:
            return f"https://huggingface.co/{self.hub.repo}/resolve/{self.hub.revision}/{self.hub.file}"
        return self.url

    @property
    def digests(self) -> dict[str, str]:
        """The checksums that are known, by kind."""
        stated = {"sha256": self.sha256, "md5": self.md5, "git_sha1": self.git_sha1}
        return {kind: value for kind, value in stated.items() if value}


Lock = dict[str, WeightFile]


def read_lock(path: str | Path = LOCK_FILE) -> Lock:
    """Read and check weights.lock.yaml.

    Raises:
        ValueError: naming the entry, the field and what is wrong.
    """
    try:
        raw = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run from the project's top directory") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected a mapping of names to files, found {type(raw).__name__}")
    lock = {str(name): _entry(path, str(name), value) for name, value in raw.items()}
    files = [entry.file for entry in lock.values()]
    for name, entry in lock.items():
        if files.count(entry.file) > 1:
            raise ValueError(f"{path}: {name}.file={entry.file!r} is the file of another entry, too")
    return lock


def locked(name: str, lock: Lock) -> WeightFile:
    """The entry of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in lock:
        raise ValueError(f"{name}: not in {LOCK_FILE} (known: {', '.join(lock)})")
    return lock[name]


def _entry(path: str | Path, name: str, value: Any) -> WeightFile:
    try:
        return WeightFile.model_validate(value)
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join([name, *map(str, item['loc'])])}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        ]
        raise ValueError("\n".join(lines)) from None
