"""Foreign weight files: every official format is read, nothing in a file is run, damage is named."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from specmaskfoley.weights.reading import check_format, load_strictly, read_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(8, 4, 3, generator=generator),
        "conv.bias": torch.randn(8, generator=generator).half(),
        "count": torch.tensor(7),
        "view": torch.randn(6, 5, generator=generator).T,
    }


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype
        assert not found[name].requires_grad


def packed(path: Path, name: str, data: bytes, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member, content in (("run/configs/a.yaml", b"a: 1"), (name, data)):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_both_formats_of_torch_save(tmp_path, zipped, kind):
    path = tmp_path / "x.pth"
    torch.save(kind(tensors()), path, _use_new_zipfile_serialization=zipped)
    assert_same(read_weights(path), tensors())


def test_safetensors_and_a_module_s_own_state_dict(tmp_path):
    save_file({name: value.contiguous() for name, value in tensors().items()}, tmp_path / "x.safetensors")
    found = read_weights(tmp_path / "x.safetensors")
    assert_same({name: found[name] for name in tensors()}, tensors())
    module = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3))
    torch.save(module.state_dict(), tmp_path / "x")  # no suffix, as HiFi-GAN's
    assert_same(read_weights(tmp_path / "x"), {k: v.detach() for k, v in module.state_dict().items()})


def test_zip_files_are_mapped_not_read(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    loaded = read_weights(path)
    with Path("/proc/self/maps").open() as maps:
        assert str(path) in maps.read()
    loaded["a"].fill_(1)  # private: the file stays as it is
    assert torch.equal(read_weights(path)["a"], torch.zeros(1000))


@pytest.mark.parametrize("zipped", [True, False])
def test_an_entry_of_a_larger_dict(tmp_path, zipped):
    path = tmp_path / "x.pt"
    content = {"generator": tensors(), "optimizer": {"lr": 0.1, "state": [1, None, "x"]}, "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_same(read_weights(path, entry="generator"), tensors())
    with pytest.raises(ValueError, match=r"has no entry 'model'; it holds generator, optimizer, epoch"):
        read_weights(path, entry="model")
    with pytest.raises(ValueError, match=r"generator is dict, not a tensor; perhaps `entry` is another one"):
        read_weights(path)
    with pytest.raises(ValueError, match="expected a state dict, found a int"):
        read_weights(path, entry="epoch")


@pytest.mark.parametrize("mode", ["w:gz", "w", "w:xz"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_member_of_an_archive(tmp_path, mode, zipped):
    data = io.BytesIO()
    torch.save({"state_dict": tensors()}, data, _use_new_zipfile_serialization=zipped)
    path = packed(tmp_path / "x.tar", "run/checkpoints/epoch_39.ckpt", data.getvalue(), mode)
    assert_same(read_weights(path, member="checkpoints/epoch_39.ckpt", entry="state_dict"), tensors())
    with pytest.raises(
        ValueError, match=r"has no member 'epoch_40.ckpt'; it holds run/configs/a.yaml, run/checkpoints"
    ):
        read_weights(path, member="epoch_40.ckpt")
    with pytest.raises(ValueError, match="is a tar archive, of which no member is named"):
        read_weights(path)
    assert sorted(tmp_path.iterdir()) == [path]


def test_archives_that_lie(tmp_path):
    path = packed(tmp_path / "bomb.tar.gz", "x.ckpt", b"\0" * 3_000_000)
    with pytest.raises(ValueError, match=r"bomb\.tar\.gz/x\.ckpt: claims 3000000 bytes in an archive of \d+"):
        read_weights(path, member="x.ckpt")
    link = tmp_path / "link.tar"
    with tarfile.open(link, "w") as archive:
        info = tarfile.TarInfo("x.ckpt")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(ValueError, match="is not a plain file in the archive"):
        read_weights(link, member="x.ckpt")
    whole = packed(tmp_path / "cut.tar", "x.ckpt", b"\x80" * 100_000, "w").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:50_000])
    with pytest.raises(ValueError, match=r"cut\.tar/x\.ckpt: "):
        read_weights(tmp_path / "cut.tar", member="x.ckpt")


def test_the_wrapper_s_prefix_goes_only_if_all_have_it(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({f"module.{name}": value for name, value in tensors().items()}, path)
    assert_same(read_weights(path), tensors())
    mixed = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    torch.save(mixed, path)
    assert_same(read_weights(path), mixed)


def test_a_trainer_s_settings_are_read_as_stand_ins_without_the_trainer(tmp_path):
    """As a Lightning checkpoint (classes as keys) and CLAP's (NumPy scalars), made where those classes exist."""
    script = tmp_path / "make.py"
    script.write_text(
        """
import argparse, sys, types, numpy, torch
module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
class ModelCheckpoint:
    pass
class Config:
    def __init__(self): self.a = {"b": [1]}
for item in (ModelCheckpoint, Config):
    item.__module__, item.__qualname__ = module.__name__, item.__name__
    setattr(module, item.__name__, item)
sys.modules |= {"pytorch_lightning": types.ModuleType("pytorch_lightning"),
                "pytorch_lightning.callbacks": types.ModuleType("c"), module.__name__: module}
content = {
    "callbacks": {ModelCheckpoint: {"best": torch.zeros(1)}, Config: {}},
    "hyper_parameters": argparse.Namespace(lr=0.1, config=Config()),
    "best": numpy.float64(0.5), "all": numpy.arange(3), "kind": numpy.dtype("float32"),
    "state_dict": {"module.w": torch.ones(3)},
}
for zipped in (True, False):
    torch.save(content, f"{sys.argv[1]}/{zipped}.ckpt", _use_new_zipfile_serialization=zipped)
"""
    )
    subprocess.run([sys.executable, script, tmp_path], check=True)
    core = np.float64(0).__reduce__()[0].__module__  # numpy.core.multiarray, or numpy._core.multiarray of NumPy 2
    allow = [
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        "pytorch_lightning.callbacks.model_checkpoint.Config",
        "argparse.Namespace",
        f"{core}.scalar",
        f"{core}._reconstruct",
        "numpy.ndarray",
        "numpy.dtype",
    ]
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.ckpt"
        assert_same(read_weights(path, entry="state_dict", allow=allow), {"w": torch.ones(3)})
        for left in allow:
            with pytest.raises(ValueError, match=re.escape(f"{path}: names {left}, which weights have no use for")):
                read_weights(path, entry="state_dict", allow=[name for name in allow if name != left])
    assert "pytorch_lightning" not in sys.modules
    assert not any(isinstance(item, tuple) for item in torch.serialization.get_safe_globals())  # none of ours is left


class Trap:
    """Pickles into a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "inside", "key"])
@pytest.mark.parametrize("allowed", [False, True])
def test_code_is_never_run(tmp_path, zipped, place, allowed):
    sprung = tmp_path / "sprung"
    trap = Trap(os.system, f"touch {sprung}")
    content: dict[Any, Any] = {"state_dict": tensors()}
    if place == "beside":
        content["extra"] = trap
    elif place == "inside":
        content["state_dict"]["w"] = trap
    else:
        content[(trap,)] = 1
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    name = f"{os.system.__module__}.system"
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        read_weights(path, entry="state_dict", allow=[name] if allowed else [])
    assert name in str(caught.value)
    assert not sprung.exists()


@pytest.mark.parametrize(
    "function", [eval, exec, getattr, __import__, subprocess.Popen, io.open, bytearray, torch.load, torch.hub.load]
)
def test_nor_is_anything_else_called(tmp_path, function):
    """An allowed name is called, but what stands there does nothing."""
    sprung = tmp_path / "sprung"
    arguments = (10**12,) if function is bytearray else (f"open({str(sprung)!r}, 'w')",)
    path = tmp_path / "x.pth"
    torch.save({"extra": Trap(function, *arguments), "state_dict": tensors()}, path)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_weights(path, entry="state_dict")
    name = f"{function.__module__}.{function.__qualname__}"
    if function not in (bytearray, __import__):
        assert_same(read_weights(path, entry="state_dict", allow=[name]), tensors())
    assert not sprung.exists()


def test_a_bare_pickle_and_a_whole_module_are_refused(tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "x.pth"
    for protocol in range(6):
        path.write_bytes(pickle.dumps(Trap(os.system, f"touch {sprung}"), protocol=protocol))
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read_weights(path)
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_weights(path)
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_weights(path)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Not found</html>", "is a web page"),
        (b"\n  <?xml version='1.0'?><Error/>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a git-lfs pointer"),
        (b"just some text, long enough to be anything", "is neither a torch file nor safetensors"),
        (b'{"error": "rate limited"}', "is neither a torch file nor safetensors"),
        (b"PK\x03\x04 and no more", "not readable as weights"),
        (b"\x80\x02}q\x00.", "not readable as weights"),
        (b"\x80", "not readable as weights"),
        ((8).to_bytes(8, "little") + b"{nonsen}", "not readable as weights"),
    ],
)
def test_what_is_no_weight_file_says_so(tmp_path, content, message):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_weights(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(ValueError, match=re.escape(f"{path}: no such file")):
            read_weights(path)


def zipped_with(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_zips_that_torch_did_not_write(tmp_path):
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    bomb = zipped_with(tmp_path / "bomb.pth", entries, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10_000
    with pytest.raises(ValueError, match="has compressed parts, which torch never writes"):
        read_weights(bomb)
    office = zipped_with(tmp_path / "x.docx", {"word/document.xml": b"<w/>"})
    with pytest.raises(ValueError, match=r"is a zip with 0 data\.pkl"):
        read_weights(office)
    storage = next(name for name in entries if name.endswith("data/0"))
    short = zipped_with(tmp_path / "short.pth", {**entries, storage: b"\0" * 100})
    with pytest.raises(ValueError, match=r"short\.pth: not readable as weights"):
        read_weights(short)


@pytest.mark.parametrize(
    "value", [3, None, "x", [torch.zeros(1)], np.zeros(2), torch.zeros(2).to_sparse(), torch.zeros(2, device="meta")]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_hold_plain_tensors_only(tmp_path, value, zipped):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1), "b": value}, path, _use_new_zipfile_serialization=zipped)
    core = np.float64(0).__reduce__()[0].__module__
    with pytest.raises(ValueError, match=r"x\.pth: (b is|not readable)"):
        read_weights(path, allow=[f"{core}._reconstruct", "numpy.ndarray", "numpy.dtype"])


@pytest.mark.parametrize("content", [{}, [torch.zeros(1)], torch.zeros(3), 3, {1: torch.zeros(1)}])
def test_a_torch_file_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: (expected a state dict|1 is Tensor)"):
        read_weights(tmp_path / "x.pth")


def test_quantised_tensors_are_refused(tmp_path):
    torch.save({"a": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="a is not a plain tensor"):
        read_weights(tmp_path / "x.pth")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("samples")
    for zipped in (True, False):
        torch.save({"state_dict": tensors()}, folder / f"{zipped}", _use_new_zipfile_serialization=zipped)
    save_file({"a": torch.zeros(5)}, folder / "s")
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_an_error_that_names_the_file_or_harmless(samples, tmp_path, data):
    whole = data.draw(st.sampled_from(samples))
    cut = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    damaged = bytearray(whole[:cut])
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, min(len(damaged) - 1, 2000)))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.pth"
    path.write_bytes(damaged)
    for entry in ("state_dict", None):
        found, message = {}, str(path)
        try:
            found = read_weights(path, entry=entry)
        except ValueError as error:
            message = str(error)
        assert message.startswith(str(path))
        assert all(isinstance(value, torch.Tensor) for value in found.values())
    path.unlink()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, zipped, share):
    path = tmp_path / "x.pth"
    torch.save(tensors(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"x\.pth: "):
        read_weights(path)


def test_nothing_is_half_loaded(tmp_path):
    module = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.save({"weight": torch.ones(2, 3), "bias": torch.ones(3)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"bias \[3\] instead of \[2\]"):
        load_strictly(module, read_weights(tmp_path / "x.pth"), "x.pth")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_quick_look_at_a_download(tmp_path):
    torch.save(tensors(), tmp_path / "x.pth")
    check_format(tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: expected an archive, found zip"):
        check_format(tmp_path / "x.pth", archive=True)
    packed(tmp_path / "x.tar.gz", "a", b"b")
    check_format(tmp_path / "x.tar.gz", archive=True)
    with pytest.raises(ValueError, match=r"x\.tar\.gz: expected weights, found archive"):
        check_format(tmp_path / "x.tar.gz")
    (tmp_path / "page").write_text("<html>")
    with pytest.raises(ValueError, match="page: is a web page"):
        check_format(tmp_path / "page")


def test_arguments_of_a_namespace_are_not_set(tmp_path):
    """A stand-in keeps nothing of what the file gives it."""
    torch.save({"args": argparse.Namespace(lr=0.1), "w": {"a": torch.zeros(1)}}, tmp_path / "x.pth")
    assert list(read_weights(tmp_path / "x.pth", entry="w", allow=["argparse.Namespace"])) == ["a"]
