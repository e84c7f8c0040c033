"""What the rest of the project needs of a codec: sound to tokens and back.

A kind of codec is a folder here, with its network, and a line in `trained.KINDS`.

Shape letters: B clips, F token rows, T token columns, K codes, C code width or channels of a frame, L frames, M mel
bands, S samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from specmaskfoley.weights.official import OfficialNetwork

_PEAK = 0.98


class CodecNetwork(OfficialNetwork, ABC):
    """What every kind of codec can do. Its input x is a normalised mel (B, 1, M, L), or samples (B, S).

    Latents (B, C, ...) have a place for each column, or for each token.
    """

    codebook_size: int

    @property
    @abstractmethod
    def codebooks(self) -> Sequence[Tensor]:
        """(K, C) each: one for all tokens, or one for each row; a later one codes what those before it leave."""

    @abstractmethod
    def encode_latents(self, x: Tensor) -> Tensor:
        """Not yet quantised."""

    @abstractmethod
    def assign(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens (B, F, T) int64 by the nearest codes, and what of the latents is left before each codebook and after
        the last."""

    @abstractmethod
    def lookup(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> latents."""

    @abstractmethod
    def decode_latents(self, latents: Tensor) -> Tensor:
        """As the input."""

    @abstractmethod
    def example(self, clips: int, rows: int, columns: int) -> Tensor:
        """An input of some token columns."""

    def tokens(self, x: Tensor) -> Tensor:
        """-> (B, F, T) int64."""
        return self.assign(self.encode_latents(x))[0]

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> as the input."""
        return self.decode_latents(self.lookup(tokens))


class Reader(ABC):
    """Sound to tokens."""

    @abstractmethod
    def encode(self, waveform: Tensor) -> Tensor:
        """(B, S) -> tokens (B, F, T)."""


class Tokenizer(Reader):
    """Sound to tokens and back, by way of frames (B, C, L): a mel, or the codec's latents.

    Attributes:
        frames_per_column: L / T. Windows of tokens that overlap are cross-faded as frames.
    """

    frames_per_column: int

    @abstractmethod
    def frames(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> (B, C, L)."""

    @abstractmethod
    def sound(self, frames: Tensor) -> Tensor:
        """(B, C, L) -> (B, S), on the device."""

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> waveform (B, S) on the CPU."""
        waveform = self.sound(self.frames(tokens)).float().cpu()
        # Phase reconstruction overshoots now and then; turning the clip down beats clipping it.
        return waveform / (waveform.abs().amax(1, keepdim=True) / _PEAK).clamp(min=1.0)
