"""Find, check and read official weights for the networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from specmaskfoley.settings import Params
from specmaskfoley.storage.files import refuse_pointer
from specmaskfoley.weights.lock import LOCK_FILE, locked, read_lock
from specmaskfoley.weights.records import WrongFileError, checked

if TYPE_CHECKING:
    from torch import Tensor


def load_weights(name: str, params: Params) -> tuple[dict[str, Tensor], str]:
    """The state dict of an entry of weights.lock.yaml, on the CPU, and its file's path for messages.

    Raises:
        ValueError: the entry is unknown, or its file is missing, not the right one, or not readable.
    """
    # torch takes seconds to import, and finding files does not need it.
    from specmaskfoley.weights.reading import read_weights

    entry, path = locked(name, read_lock()), find_weights(name, params)
    return read_weights(path, entry=entry.entry, member=entry.member, allow=entry.allow), str(path)


def find_weights(name: str, params: Params) -> Path:
    """The file of an entry, after a check of its checksum (not computed again if the file did not change).

    Raises:
        ValueError: the entry is unknown, or its file is missing or not the right one.
    """
    entry = locked(name, read_lock())
    path = Path(params.weights.folder) / entry.file
    if not path.exists():
        raise ValueError(f"{path}: no such file ({entry.role}); run `specmaskfoley weights fetch {name}`")
    refuse_pointer(path)
    try:
        checked(path, entry)
    except WrongFileError as error:
        raise ValueError(f"{error}; delete it and run `specmaskfoley weights fetch {name}`") from None
    return path


def weights_folder(names: Sequence[str], params: Params) -> Path:
    """The folder that holds the files of several entries, for libraries that read a folder.

    Raises:
        ValueError: as `find_weights`, or the files are in several folders.
    """
    folders = {find_weights(name, params).parent for name in names}
    if len(folders) != 1:
        raise ValueError(f"{', '.join(names)}: expected in one folder, found in {len(folders)} ({LOCK_FILE})")
    return folders.pop()
