"""What networks with published weights have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

from torch import Tensor, nn

from specmaskfoley.weights.reading import load_strictly


class OfficialNetwork(nn.Module):
    """A network whose parameters are named as in its published file."""

    ignored: ClassVar[tuple[str, ...]] = ()
    """Beginnings of names in the file for parts that this network leaves out."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Buffers that the file need not hold."""

    def load_official(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Copy the published weights into this network.

        Args:
            tensors: by the file's names.
            where: the file, for messages.

        Raises:
            ValueError: names are missing, unknown or of another shape. The network is not changed then.
        """
        load_strictly(self, tensors, where, ignore=self.ignored, keep=self.optional)


@contextmanager
def paper_packages(network: str, packages: str) -> Iterator[None]:
    """Imports inside are of packages that only the official networks need.

    Raises:
        ValueError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{network} needs {packages}, and {error.name} is not installed: run pip install -e '.[paper]'"
        ) from error
