"""Model files that know their settings, and training states that are written whole or not at all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from specmaskfoley.settings import Control as ControlSettings
from specmaskfoley.settings import SpecMaskGIT as BackboneSettings
from specmaskfoley.storage import checkpoint
from specmaskfoley.storage.checkpoint import TrainingStates, load_model, save_model

SETTINGS = ControlSettings(depth=3, aligner_mlp_width=64)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Linear(5, 3))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_weights_and_buffers_come_back_bit_for_bit(tmp_path):
    saved, loaded = network(0), network(1)
    saved(torch.randn(8, 2, 7))  # moves the running statistics
    save_model(tmp_path / "deep" / "m.safetensors", saved, control=SETTINGS)
    load_model(tmp_path / "deep" / "m.safetensors", loaded, control=SETTINGS)
    for name, value in saved.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert names(tmp_path / "deep") == ["m.safetensors"]


def test_weights_that_are_views_of_others_are_saved(tmp_path):
    saved, loaded = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)
    saved.weight = nn.Parameter(torch.arange(12.0).view(3, 4).T)
    save_model(tmp_path / "m.safetensors", saved)
    load_model(tmp_path / "m.safetensors", loaded)
    assert torch.equal(loaded.weight, saved.weight)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    """Else DVC would run everything after it again. (safetensors writes several metadata keys in random order.)"""
    path, settings = tmp_path / "m.safetensors", {name: index for index, name in enumerate("abcdef")}
    files = set()
    for _ in range(10):
        save_model(path, network(0), control=SETTINGS, **settings)
        files.add(path.read_bytes())
    assert len(files) == 1


def test_other_settings_are_named_with_both_values(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, network(0), control=SETTINGS)
    other = SETTINGS.model_copy(update={"depth": 7})
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        load_model(path, network(0), control=other)
    assert 'control={"depth": 3' in str(caught.value)
    assert '"depth": 7' in str(caught.value)


@pytest.mark.parametrize(("saved", "wanted"), [(512, 256), ("a", "b"), (1, "1")])
def test_plain_settings_are_compared_too(tmp_path, saved, wanted):
    save_model(tmp_path / "m.safetensors", network(0), classes=saved)
    load_model(tmp_path / "m.safetensors", network(0), classes=saved)
    with pytest.raises(ValueError, match="was made with classes="):
        load_model(tmp_path / "m.safetensors", network(0), classes=wanted)


def test_settings_with_lists_survive_the_round_trip(tmp_path):
    settings = BackboneSettings(kind="specmaskgit", depth=1, width=8, heads=2, mlp_width=16)
    save_model(tmp_path / "m.safetensors", network(0), backbone=settings, lags="[1, 2]")
    load_model(tmp_path / "m.safetensors", network(0), backbone=settings, lags="[1, 2]")


def test_a_file_of_another_origin_is_refused(tmp_path):
    save_model(tmp_path / "m.safetensors", network(0))
    with pytest.raises(ValueError, match="does not say its control"):
        load_model(tmp_path / "m.safetensors", network(0), control=SETTINGS)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "m.safetensors")) + ": no such model"):
        load_model(tmp_path / "m.safetensors", network(0))


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "m.safetensors"
    save_model(path, network(0))
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) - 10], "empty": b"", "text": b"not a model, but long enough"}[damage])
    with pytest.raises(ValueError, match=re.escape(str(path)) + ": not a readable safetensors file"):
        load_model(path, network(0))


def test_nothing_is_loaded_when_the_settings_differ(tmp_path):
    save_model(tmp_path / "m.safetensors", network(0), classes=2)
    loaded = network(1)
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    with pytest.raises(ValueError, match="classes"):
        load_model(tmp_path / "m.safetensors", loaded, classes=3)
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())


def test_a_save_that_fails_midway_leaves_the_old_model(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save_model(path, network(0), classes=2)
    before = path.read_bytes()

    def disk_full(tensors, file, metadata):
        Path(file).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_model(path, network(1), classes=2)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["m.safetensors"]


def test_a_training_state_comes_back(tmp_path):
    optimizer = torch.optim.AdamW(network(0).parameters())
    state = {"step": 3, "optimizer": optimizer.state_dict(), "curves": {"loss": [(1, 0.5)]}, "x": torch.arange(3)}
    TrainingStates(tmp_path, "s").save(3, state)
    found = TrainingStates(tmp_path, "s").load()
    assert found is not None
    assert found["step"] == 3
    assert found["curves"] == {"loss": [(1, 0.5)]}
    assert torch.equal(found["x"], state["x"])
    assert found["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]


def test_no_training_state_yet_is_none(tmp_path):
    assert TrainingStates(tmp_path, "s").load() is None
    assert TrainingStates(tmp_path, "s").newest is None


def test_the_newest_states_are_kept_and_only_of_this_training(tmp_path):
    TrainingStates(tmp_path, "sync").save(5, {"step": 5})
    states = TrainingStates(tmp_path, "s", keep=2)
    for step in (1, 20, 300):
        states.save(step, {"step": step})
    assert names(tmp_path) == ["s-00000020.pt", "s-00000300.pt", "sync-00000005.pt"]
    assert states.load() == {"step": 300}


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 999])
def test_a_damaged_state_falls_back_to_the_one_before(tmp_path, damage, capsys):
    states = TrainingStates(tmp_path, "s")
    states.save(1, {"step": 1, "x": torch.zeros(99)})
    states.save(2, {"step": 2, "x": torch.zeros(99)})
    newest = tmp_path / "s-00000002.pt"
    newest.write_bytes(damage(newest.read_bytes()))
    found = states.load()
    assert found is not None
    assert found["step"] == 1
    told = capsys.readouterr().out
    assert "s-00000002.pt: damaged checkpoint (" in told
    assert "going on from the one before" in told
    # What is set aside is not in the way of the states to come.
    for step in (2, 3):
        states.save(step, {"step": step})
    assert names(tmp_path) == ["s-00000002.pt", "s-00000002.pt.damaged", "s-00000003.pt"]


def test_nothing_but_damaged_states_is_an_error_and_not_a_fresh_start(tmp_path):
    (tmp_path / "s-00000001.pt").write_bytes(b"x")
    (tmp_path / "s-00000002.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"s-00000002.pt: damaged .*s-00000001.pt: damaged .*delete"):
        TrainingStates(tmp_path, "s").load()
    assert names(tmp_path) == ["s-00000001.pt", "s-00000002.pt"]


@pytest.mark.skipif(os.name == "nt", reason="a limit on the size of files")
def test_a_state_that_does_not_fit_on_the_disk_leaves_the_old_ones(tmp_path):
    """The system refuses to write more than a megabyte into a file."""
    script = """
import resource, sys, torch
from pathlib import Path
from specmaskfoley.storage.checkpoint import TrainingStates
states = TrainingStates(Path(sys.argv[1]), "s")
states.save(1, {"step": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
try:
    states.save(2, {"step": 2, "big": torch.zeros(10**6)})
except ValueError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "s-00000002.pt: this checkpoint cannot be written" in done.stdout
    assert "s-00000001.pt, is kept" in done.stdout
    assert names(tmp_path) == ["s-00000001.pt"]
    assert TrainingStates(tmp_path, "s").load() == {"step": 1}


def test_a_state_with_code_in_it_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"step": Trap()}, tmp_path / "s-00000001.pt")
    with pytest.raises(ValueError, match=r"(?i)weights.only"):
        TrainingStates(tmp_path, "s").load()
    assert not (tmp_path / "sprung").exists()
