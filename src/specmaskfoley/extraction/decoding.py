"""What a decoding process does, and how its arrays come back; it loads torch only where frames are shaped with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from specmaskfoley.media.clips import read_clip
from specmaskfoley.media.container import MediaError
from specmaskfoley.media.frames import View
from specmaskfoley.media.sound import Sound
from specmaskfoley.processes.isolation import Lost

_SHARED_FROM = 1 << 23
"""Bytes of a clip from which shared memory is quicker than a pipe: 73 MB take 0.1 s of CPU in the one, 0.3 s in the
other."""

Kind = View | Sound


@dataclass(frozen=True)
class Decoded:
    """The arrays of one clip, here or in shared memory; each is taken once, by `move_into`."""

    arrays: Mapping[Kind, np.ndarray]
    shared: str | None = None
    layout: tuple[tuple[Kind, str, tuple[int, ...]], ...] = ()

    @classmethod
    def of(cls, arrays: Mapping[Kind, np.ndarray]) -> Decoded:
        """To be sent to another process; through shared memory if that is worth it and there is room."""
        size = sum(array.nbytes for array in arrays.values())
        if size < _SHARED_FROM or not hasattr(os, "posix_fallocate"):
            return cls(arrays)
        memory = SharedMemory(create=True, size=size)
        try:
            # Containers often have little of it; without this, writing beyond would end the process.
            os.posix_fallocate(memory._fd, 0, size)  # type: ignore[attr-defined]
            for array, place in zip(arrays.values(), _places(memory, _layout(arrays)), strict=True):
                place[...] = array
                del place
        except OSError:
            memory.unlink()
            return cls(arrays)
        finally:
            memory.close()
        return cls({}, memory.name, _layout(arrays))

    @property
    def shapes(self) -> dict[Kind, tuple[str, tuple[int, ...]]]:
        """dtype and shape by view and sound."""
        return {kind: (dtype, shape) for kind, dtype, shape in self.layout or _layout(self.arrays)}

    def move_into(self, batch: Mapping[Kind, np.ndarray], number: int) -> None:
        """Put the arrays at `number` of those of a batch; shared memory is given back."""
        if self.shared is None:
            for kind, array in self.arrays.items():
                batch[kind][number] = array
            return
        memory = SharedMemory(self.shared)
        for (kind, _, _), place in zip(self.layout, _places(memory, self.layout), strict=True):
            batch[kind][number] = place
            del place
        memory.close()
        memory.unlink()


class ClipReader:
    """Reads files by `views` and `sounds` from a second on, on one thread.

    Unpickling it loads what it needs, before memory is bound.
    """

    def __init__(self, views: tuple[View, ...], sounds: tuple[Sound, ...]) -> None:
        self._views, self._sounds = views, sounds
        self._shapes_with_torch = any(view.fit != "stretch" for view in views)
        if self._shapes_with_torch:
            import torchvision.transforms.v2.functional  # noqa: F401

    def __reduce__(self) -> tuple[Any, ...]:
        return ClipReader, (self._views, self._sounds)

    def __call__(self, place: tuple[str, float]) -> Decoded | Lost:
        if self._shapes_with_torch:
            import torch

            torch.set_num_threads(1)  # a process a core
        try:
            frames, waves = read_clip(place[0], self._views, self._sounds, place[1])
        except MediaError as error:
            return Lost(error.state, str(error))
        arrays: dict[Kind, np.ndarray] = {**dict(frames.items()), **dict(waves.items())}
        return Decoded.of(arrays)


def _layout(arrays: Mapping[Kind, np.ndarray]) -> tuple[tuple[Kind, str, tuple[int, ...]], ...]:
    return tuple((kind, array.dtype.name, array.shape) for kind, array in arrays.items())


def _places(memory: SharedMemory, layout: tuple[tuple[Kind, str, tuple[int, ...]], ...]) -> Any:
    """One after the other, and only one at a time: memory with an array on it cannot be closed."""
    offset = 0
    for _, dtype, shape in layout:
        array: np.ndarray = np.ndarray(shape, dtype, memory.buf, offset)
        offset += array.nbytes
        yield array
        del array
