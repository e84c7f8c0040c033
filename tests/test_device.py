"""Where and how networks run: looked at before, told, and set once for all stages."""

from __future__ import annotations

import ast
import inspect
import shutil
import sysconfig
import warnings
from typing import Any

import pytest
import torch
from helpers import ROOT

from specmaskfoley import device as runtime
from specmaskfoley.settings import Params
from specmaskfoley.training.loop import _compiles

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
RUN = Params.load(ROOT / "params.yaml").run


def run(**changes: Any) -> Any:
    return RUN.model_copy(update=changes)


def test_a_driver_that_is_too_old_is_told(monkeypatch, capsys):
    def is_available() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old (Triggered at x)", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    assert runtime.pick_device("auto") == CPU
    told = capsys.readouterr().err
    assert told.splitlines() == [
        "run.device=auto: the GPU is not used: CUDA initialization: The NVIDIA driver on your system is too old"
    ]


def test_a_machine_without_a_gpu_needs_no_words(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.pick_device("auto").type in ("cpu", "mps")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("name", "current"), [("cuda:1", [torch.device("cuda:1")]), ("cuda", []), ("cpu", [])])
def test_the_current_device_is_set_once_for_all(monkeypatch, name, current):
    chosen: list[torch.device] = []
    monkeypatch.setattr(runtime, "pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert runtime.start_device(run(device=name, threads=0)) == torch.device(name)
    assert chosen == current


def test_deterministic_mode_fills_no_fresh_tensors():
    runtime.start_device(run(device="cpu", threads=0))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("warn_only", [True, False])
def test_the_short_way_to_determinism_sets_what_the_public_one_does(on, warn_only):
    states = []
    for set_it in (torch.use_deterministic_algorithms, runtime.set_deterministic):
        set_it(not on, warn_only=not warn_only)
        set_it(on, warn_only=warn_only)
        states.append(
            (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
        )
    assert states[0] == states[1]
    torch.use_deterministic_algorithms(False)


def test_the_public_way_to_determinism_sets_nothing_else_than_the_compilers_switch():
    """Another version of torch may."""
    [function] = ast.parse(inspect.getsource(torch.use_deterministic_algorithms)).body
    assert [ast.unparse(statement) for statement in function.body[1:]] == [
        "import torch._inductor.config as inductor_config",
        "inductor_config.deterministic = mode",
        "_C._set_deterministic_algorithms(mode, warn_only=warn_only)",
    ]


def test_what_is_compiled_is_deterministic(monkeypatch):
    import torch._inductor.config as compiler

    monkeypatch.setattr(compiler, "deterministic", False)
    runtime.compiled(torch.nn.Linear(2, 2))
    assert compiler.deterministic
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("precision", "device", "name"),
    [
        ("auto", CUDA, "bfloat16"),
        ("float16", CUDA, "float16"),
        ("float32", CUDA, "float32"),
        ("bfloat16", CPU, "bfloat16"),
    ],
)
def test_precisions_have_names(precision, device, name):
    assert runtime.precision_name(precision, device) == name


@pytest.mark.parametrize(("bf16", "amx"), [(True, False), (False, True), (False, False)])
def test_auto_means_bfloat16_where_the_processor_multiplies_it(monkeypatch, bf16, amx):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert runtime.precision_name("auto", CPU) == ("bfloat16" if bf16 or amx else "float32")


def test_a_stage_that_trains_may_have_threads_of_its_own():
    before = torch.get_num_threads()
    try:
        for stage, threads in (("codec", 1), ("control", 3), ("", 3)):
            runtime.start_device(run(device="cpu", threads=3, training_threads={"codec": 1}), stage)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_the_first_line_names_device_and_precision(capsys):
    runtime.announce(CPU, "float32")
    assert capsys.readouterr().out == f"device cpu ({torch.get_num_threads()} threads), float32\n"


@pytest.fixture
def tools(monkeypatch, tmp_path):
    """A machine with a compiler and Python's headers, of which a test may take some away."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in ("gcc", "g++") else None)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_with_its_tools_torch_compiles(tools, device):
    assert runtime.compile_trouble(device) == ""
    assert _compiles(run(compile="always"), device)
    assert _compiles(run(compile="auto"), device) == (device == CUDA)


def test_without_a_compiler_the_networks_are_not_compiled(tools, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not _compiles(run(compile="auto"), CUDA)
    assert "not compiled, which is slower: no C compiler (CC, gcc or clang)" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"run\.compile=always: no C compiler .* run\.compile=never"):
        _compiles(run(compile="always"), CUDA)
    assert not _compiles(run(compile="never"), CUDA)


def test_without_headers_the_networks_are_not_compiled(tools, capsys):
    (tools / "Python.h").unlink()
    assert not _compiles(run(compile="auto"), CUDA)
    assert f"no Python headers ({tools}/Python.h; Debian: python3-dev)" in capsys.readouterr().out
