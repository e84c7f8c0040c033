"""What an earlier run has made already: by the records beside the results, not by their names."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specmaskfoley.foley.export import model_identity
from specmaskfoley.foley.records import FileIdentity, Generate, Record
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import read_json, sha256
from specmaskfoley.storage.results import text_name

if TYPE_CHECKING:
    from specmaskfoley.commands.generate import Options, Work


@dataclass(frozen=True)
class Existing:
    """Compares results with what this model would make; paths in `params` count from `home`."""

    params: Params
    home: Path

    @cached_property
    def _model(self) -> dict[str, str]:
        with contextlib.chdir(self.home):
            return model_identity(self.params)

    def has(self, work: Work) -> bool:
        """Whether all candidates are there, made of the same files by the same model with the same settings."""
        options = work.options
        first = self.params.sampling.changed(**{"seed": 0, **options.sampling})
        first = options.prompt.sampling(first, seen=work.video is not None)
        wanted = Generate(**Generate.said(options.prompt), sampling=first, duration_s=options.duration_s)
        seeds = {self._seed(target, work, wanted) for target in work.targets}
        return seeds == {first.seed + number for number in range(options.candidates)}

    def _seed(self, target: Path, work: Work, wanted: Generate) -> int | None:
        """The seed of a result; None: there is none, or it is another one than is wanted."""
        path = target.with_name(f"{target.name}.json")
        try:
            record, files = Record.read(path), read_json(path)["files"]
            made = record.history[0]
            if len(record.history) > 1 or not isinstance(made, Generate):
                return None
            seed = made.sampling.seed
            alike = {"like": None, "sampling": wanted.sampling.changed(seed=seed)}
            same = (
                made.model_copy(update={"like": None}) == wanted.model_copy(update=alike)
                and _digest(made.like) == _digest(wanted.like)
                and _digest(record.video) == (None if work.video is None else sha256(work.video))
                and record.settings.fits(self.params)
                and record.model == self._model
                and _are_there(target, files, work.options)
            )
        except (ValueError, OSError, KeyError, TypeError):  # no record of ours
            return None
        return seed if same else None


def _digest(identity: FileIdentity | None) -> str | None:
    return None if identity is None else identity.sha256


def _are_there(target: Path, files: dict[str, Any], options: Options) -> bool:
    """Whether the files of a result are those that these options ask for, as they were written."""
    said: dict[str, Any] = {
        "audio": text_name(target.with_name(f"{target.name}.{options.format}")),
        "keep_original_audio": options.keep_original_audio,
        "picture": options.picture,
        "audio_track": options.audio_track,
    }
    if {name: files.get(name) for name in said} != said:
        return False
    roles = [role for role in ("audio", "video") if role in files]
    return all(
        sha256(target.with_name(target.name + Path(files[role]).suffix)) == files[f"{role}_sha256"] for role in roles
    )
