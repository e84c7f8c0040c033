"""Read weight files from elsewhere without running code in them, and load them completely or not at all."""

from __future__ import annotations

import io
import pickletools
import tarfile
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Literal

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file
from torch import Tensor, nn

Format = Literal["zip", "stream", "safetensors", "archive"]

_SHOWN = 5
_HEAD = 512  # bytes by which a format is known
_LEGACY_PICKLES = 5  # magic number, protocol, machine, the object, the storages' keys; then the storages
_INFLATION = 20  # float weights hardly compress: a member claiming more than this is no weight file
# What weights_only unpickling needs for tensors, besides names of torch, which torch itself checks.
_HARMLESS = {"collections.OrderedDict", "collections.Counter", "_codecs.encode", "builtins.set", "builtins.complex"}


def read_weights(
    path: str | Path, *, entry: str | None = None, member: str | None = None, allow: Iterable[str] = ()
) -> dict[str, Tensor]:
    """The tensors of a weight file, on the CPU. No code in the file is run, and no class that it names is imported.

    Reads safetensors and both formats of `torch.save`: the zip, which is mapped into memory instead of read, and the
    older stream of pickles. The prefix `module.` of nn.DataParallel is taken off if all names have it.

    Args:
        entry: the key of the state dict, where the file holds a dict of several things.
        member: the file inside a tar archive, compressed or not.
        allow: full names of classes and functions that the file mentions beside tensors (a trainer's settings, say);
            an empty stand-in takes the place of each.

    Raises:
        ValueError: naming the file and the reason: it is missing, cut short, no weight file, names anything that is
            not allowed, or holds something else than tensors.
    """
    path = Path(path)
    where = f"{path}/{member}" if member else str(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with _opened(path, member) as source:
            loaded = _parsed(source, set(allow))
    except _RefusedError as error:
        raise ValueError(f"{where}: {error}") from None
    except Exception as error:  # damaged bytes make the parsers raise any kind of exception
        raise ValueError(f"{where}: not readable as weights, damaged perhaps ({_reason(error)})") from error
    return _without_wrapper(_state_dict(loaded, entry, where))


def check_format(path: str | Path, *, archive: bool = False) -> None:
    """Check the first bytes of a download without a known checksum.

    Raises:
        ValueError: it is empty, a web page, or otherwise no weight file; or no archive, if it should be one.
    """
    try:
        with Path(path).open("rb") as stream:
            found = _format(stream)
    except _RefusedError as error:
        raise ValueError(f"{path}: {error}") from None
    if archive != (found == "archive"):
        raise ValueError(f"{path}: expected {'an archive' if archive else 'weights'}, found {found}")


def load_strictly(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    where: str,
    *,
    prefix: str = "",
    ignore: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> None:
    """Copy official weights into a module whose names, after `prefix`, are the official ones.

    Args:
        where: the file, for messages.
        prefix: the part of an official name that the module's own names lack.
        ignore: beginnings of official names that belong to parts this module does not have; any other name that
            it does not know is an error.
        keep: names of the module that the file need not hold (buffers that the constructor makes).

    Raises:
        ValueError: names are missing, unknown or of another shape. The module is untouched then.
    """
    own = {prefix + name: value for name, value in module.state_dict().items()}
    kept = {prefix + name for name in keep}
    missing = [name for name in own if name not in tensors and name not in kept]
    unknown = [name for name in tensors if name not in own and not name.startswith(tuple(ignore))]
    misshapen = [
        f"{name} {list(tensors[name].shape)} instead of {list(value.shape)}"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise ValueError(f"{where}: not the weights of {type(module).__name__}: {'; '.join(problems)}")
    with torch.no_grad():
        for name, value in own.items():
            if name in tensors:
                value.copy_(tensors[name])


class _RefusedError(ValueError):
    """Why a file is not read; the caller adds the file's name."""


class _StandIn:
    """Replaces a foreign class or function: accepts any arguments and state, and keeps nothing."""

    def __new__(cls, *_: Any) -> _StandIn:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        return None


@contextmanager
def _opened(path: Path, member: str | None) -> Iterator[Path | io.BytesIO]:
    """The file itself, or a member of it in memory."""
    if member is None:
        yield path
        return
    with tarfile.open(path, "r:*") as archive:
        for info in archive:
            if info.name == member or info.name.endswith(f"/{member}"):
                yield io.BytesIO(_member(archive, info, path.stat().st_size))
                return
        raise _RefusedError(f"has no member {member!r}; it holds {_few(archive.getnames())}")


def _member(archive: tarfile.TarFile, info: tarfile.TarInfo, archive_size: int) -> bytes:
    stream = archive.extractfile(info) if info.isfile() else None
    if stream is None:
        raise _RefusedError("is not a plain file in the archive")
    if info.size > _INFLATION * archive_size:
        raise _RefusedError(f"claims {info.size} bytes in an archive of {archive_size}")
    data = stream.read(info.size)
    if len(data) != info.size:
        raise _RefusedError(f"is cut short: {len(data)} of {info.size} bytes")
    return data


def _parsed(source: Path | io.BytesIO, allow: set[str]) -> Any:
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as stream:
        found = _format(stream)
        if found == "archive":
            raise _RefusedError("is a tar archive, of which no member is named")
        if found == "safetensors":
            return load_file(source) if isinstance(source, Path) else load_bytes(source.getvalue())
        names = _names_in_zip(stream) if found == "zip" else _names_in_pickles(stream, _LEGACY_PICKLES)
        stream.seek(0)
    refused = sorted(name for name in names.values() if name not in allow | _HARMLESS and not name.startswith("torch."))
    if refused:
        raise _RefusedError(f"names {_few(refused)}, which weights have no use for; nothing of it was run")
    # A type each: two of them may be keys of one dict.
    stand_ins = {name: type(name, (_StandIn,), {}) for name in names.values() if name in allow}
    spellings: list[Any] = [
        (stand_ins[name], spelling) for spelt, name in names.items() if name in stand_ins for spelling in {spelt, name}
    ]
    with torch.serialization.safe_globals(spellings):
        mapped = isinstance(source, Path) and found == "zip"
        return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)


def _format(stream: IO[bytes]) -> Format:
    """The format by the first bytes; the stream is at its beginning again afterwards."""
    head, size = stream.read(_HEAD), stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\x80"):
        return "stream"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or head[257:262] == b"ustar":
        return "archive"
    if not head:
        raise _RefusedError("is empty")
    if head.lstrip().startswith(b"<"):
        raise _RefusedError("is a web page, of an error or a login perhaps, not weights")
    if head.startswith(b"version https://git-lfs"):
        raise _RefusedError("is a git-lfs pointer, not the file it points to")
    raise _RefusedError("is neither a torch file nor safetensors")


def _names_in_zip(stream: IO[bytes]) -> dict[str, str]:
    with zipfile.ZipFile(stream) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise _RefusedError("has compressed parts, which torch never writes")
        pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise _RefusedError(f"is a zip with {len(pickles)} data.pkl, not a torch file")
        return _names_in_pickles(io.BytesIO(archive.read(pickles[0])), 1)


def _names_in_pickles(stream: IO[bytes], count: int) -> dict[str, str]:
    """Every class and function in the next pickles: spelling in the file -> its name today; nothing is loaded."""
    names = {}
    for _ in range(count):
        for opcode, argument, _position in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                module, name = str(argument).split(" ", 1)
                spelt = f"{module}.{name}"
                # Pickles of protocol 2, torch's, call modules as Python 2 did.
                module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                names[spelt] = f"{module}.{name}"
            elif opcode.name in ("INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                names[opcode.name] = f"something by {opcode.name}"
    return names


def _state_dict(loaded: Any, entry: str | None, where: str) -> dict[str, Tensor]:
    if entry is not None:
        if not isinstance(loaded, dict) or entry not in loaded:
            held = _few(loaded) if isinstance(loaded, dict) else type(loaded).__name__
            raise ValueError(f"{where}: has no entry {entry!r}; it holds {held}")
        loaded = loaded[entry]
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError(
            f"{where}: expected a state dict, found {'an empty' if loaded == {} else 'a'} {type(loaded).__name__}"
        )
    tensors = {}
    for name, value in loaded.items():
        if not isinstance(name, str) or type(value) not in (Tensor, nn.Parameter):
            raise ValueError(
                f"{where}: {_few([name])} is {type(value).__name__}, not a tensor; perhaps `entry` is another one"
            )
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_nested:
            raise ValueError(f"{where}: {_few([name])} is not a plain tensor")
        tensors[name] = value.detach()
    return tensors


def _without_wrapper(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    wrapper = "module."
    if all(name.startswith(wrapper) for name in tensors):
        return {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return tensors


def _few(names: Iterable[Any]) -> str:
    shown = [str(name).encode("unicode_escape").decode() for name in names]  # one line, whatever a damaged file says
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")


def _reason(error: Exception) -> str:
    """One line of the message, without torch's advice to trust the file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = [line for line in lines if "WeightsUnpickler error: " in line or " GLOBAL " in line]
    text = (said or lines)[0].rpartition("WeightsUnpickler error: ")[2]
    return text.partition(" Please use ")[0].rstrip(". ")
