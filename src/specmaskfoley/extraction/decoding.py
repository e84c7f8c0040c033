"""Clips read in decoding processes, and how their arrays come back; loads torch only if frames are shaped with it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
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

Layout = Mapping[View | Sound, tuple[str, tuple[int, ...]]]
"""dtype and shape of each array of a clip, in the order of memory."""


@dataclass(frozen=True)
class Decoded:
    """The arrays of one clip, here or in shared memory; each is taken once, by `move_into`."""

    layout: Layout
    arrays: Mapping[View | Sound, np.ndarray]
    shared: str | None = None

    @classmethod
    def of(cls, arrays: Mapping[View | Sound, np.ndarray]) -> Decoded:
        """To be sent to another process; through shared memory if that is worth it and there is room."""
        layout = {key: (array.dtype.name, array.shape) for key, array in arrays.items()}
        size = sum(array.nbytes for array in arrays.values())
        if size < _SHARED_FROM or not hasattr(os, "posix_fallocate"):
            return cls(layout, arrays)
        memory = SharedMemory(create=True, size=size)
        try:
            # Containers often have little of it; without this, writing beyond would end the process.
            os.posix_fallocate(memory._fd, 0, size)  # type: ignore[attr-defined]
            for key, place in _places(memory, layout):
                place[...] = arrays[key]
                del place
        except OSError:
            memory.unlink()
            return cls(layout, arrays)
        finally:
            memory.close()
        return cls(layout, {}, memory.name)

    def move_into(self, batch: Mapping[View | Sound, np.ndarray], number: int) -> None:
        """Put each array at position `number` of the batch's array; shared memory is freed."""
        if self.shared is None:
            for key, array in self.arrays.items():
                batch[key][number] = array
            return
        memory = SharedMemory(self.shared)
        for key, place in _places(memory, self.layout):
            batch[key][number] = place
            del place
        memory.close()
        memory.unlink()


class ClipReader:
    """Reads files by `views` and `sounds` from a second on, on one thread.

    Unpickling it loads what it needs, before memory is limited.
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
        path, start_s = place
        try:
            frames, waves = read_clip(path, self._views, self._sounds, start_s)
        except MediaError as error:
            return Lost(error.state, str(error))
        return Decoded.of({**dict(frames.items()), **dict(waves.items())})


def _places(memory: SharedMemory, layout: Layout) -> Iterator[tuple[View | Sound, np.ndarray]]:
    """Arrays on the memory, one at a time: memory that an array lies on cannot be closed."""
    offset = 0
    for key, (dtype, shape) in layout.items():
        array: np.ndarray = np.ndarray(shape, dtype, memory.buf, offset)
        offset += array.nbytes
        yield key, array
        del array
