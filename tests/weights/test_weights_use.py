"""What networks, people and DVC see of the weights: loading, the console command, the stage."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import runpy
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT
from helpers.web_server import Answer, Web
from typer.testing import CliRunner

from specmaskfoley.commands.main import app
from specmaskfoley.settings import Params
from specmaskfoley.weights.loading import find_weights, load_weights, weights_folder

ABOUT = {"role": "a test", "licence": "MIT", "commercial": "allowed", "page": "https://x"}
RUNNER = CliRunner()


def saved(content: Any, *, zipped: bool = True) -> bytes:
    data = io.BytesIO()
    torch.save(content, data, _use_new_zipfile_serialization=zipped)
    return data.getvalue()


def archived(data: bytes, member: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        info = tarfile.TarInfo(f"run/{member}")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


class Place:
    """A directory with params.yaml, weights.lock.yaml and a server that has every file of the lock."""

    def __init__(self, root: Path, web: Web) -> None:
        self.root, self.web = root, web
        self.params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        self.params["weights"]["retries"] = 0
        self.lock: dict[str, dict[str, Any]] = {}
        for name, entry in yaml.safe_load((ROOT / "weights.lock.yaml").read_text(encoding="utf-8")).items():
            data = self.made(name, entry)
            self.lock[name] = {
                **{
                    key: value
                    for key, value in entry.items()
                    if key not in ("hub", "by_hand", "sha256", "md5", "git_sha1")
                },
                "url": web.url(name),
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            web.files[f"/{name}"] = data
        self.write()

    @staticmethod
    def made(name: str, entry: dict[str, Any]) -> bytes:
        """A small file of the entry's format."""
        if entry.get("kind") == "text":
            return f"{name}\n".encode()
        weights: dict[str, Any] = {"a.weight": torch.full((3, 2), float(len(name))), "loss.x": torch.zeros(1)}
        if name == "clap":
            weights = {f"module.{key}": value for key, value in weights.items()}
        content = {entry["entry"]: weights, "best": np.float64(1)} if "entry" in entry and "allow" in entry else weights
        if "entry" in entry and "allow" not in entry:
            content = {entry["entry"]: weights, "steps": 3}
        data = saved(content, zipped=name not in ("clap", "passt"))
        return archived(data, entry["member"]) if "member" in entry else data

    def write(self) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(self.params, sort_keys=False))
        (self.root / "weights.lock.yaml").write_text(yaml.safe_dump(self.lock, sort_keys=False))

    def settings(self, profile: str = "vggsound") -> Params:
        return Params.from_mapping({**self.params, "profile": profile})

    def run(self, *arguments: str) -> tuple[int, str]:
        result = RUNNER.invoke(app, ["weights", *arguments, "--params", str(self.root / "params.yaml")])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output


@pytest.fixture
def place(tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, web)


def test_every_official_format_is_fetched_and_read(place):
    # NumPy 2 calls the module of scalars numpy._core, the official files are of NumPy 1.
    place.lock["clap"]["allow"] += ["numpy._core.multiarray.scalar"]
    place.lock["specvqgan_vggsound"]["allow"] += ["numpy._core.multiarray.scalar"]
    place.write()
    code, output = place.run("fetch", *place.lock)
    assert code == 0, output
    for name, entry in place.lock.items():
        if entry.get("kind") != "text":
            tensors, where = load_weights(name, place.settings())
            assert list(tensors) == ["a.weight", "loss.x"]
            assert torch.equal(tensors["a.weight"], torch.full((3, 2), float(len(name))))
            assert where == f"weights/{entry['file']}"
    names = [name for name in place.lock if name.startswith("roberta_base")]
    assert weights_folder(names, place.settings()) == Path("weights/roberta-base")
    assert find_weights("roberta_base_vocab", place.settings()).read_text() == "roberta_base_vocab\n"
    with pytest.raises(ValueError, match="vggish, passt, clap, roberta_base_vocab: expected in one folder, found in 2"):
        weights_folder(["vggish", "passt", "clap", "roberta_base_vocab"], place.settings())


def test_missing_and_wrong_files_say_what_to_run(place):
    with pytest.raises(ValueError, match="run `specmaskfoley weights fetch vggish`") as caught:
        load_weights("vggish", place.settings())
    assert str(caught.value).startswith("weights/vggish-10086976.pth: no such file (judge of FAD)")
    Path("weights").mkdir()
    Path("weights/vggish-10086976.pth").write_bytes(b"something else")
    with pytest.raises(ValueError, match="delete it and run `specmaskfoley weights fetch vggish`"):
        load_weights("vggish", place.settings())
    Path("weights/vggish-10086976.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"vggish-10086976\.pth: is a git-lfs pointer.*`git lfs pull`"):
        load_weights("vggish", place.settings())
    with pytest.raises(ValueError, match=r"vgg: not in weights\.lock\.yaml"):
        load_weights("vgg", place.settings())


def test_the_list_shows_states_licences_and_profiles(place):
    place.run("fetch", "vggish", "passt")
    Path("weights/passt-s-f128-p16-s10-ap.476-swa.pt").write_bytes(b"x")
    Path("weights/imagebind_huge.pth").write_bytes(place.web.files["/imagebind"])
    code, output = place.run("list")
    assert code == 0
    rows = {line.split()[0]: line for line in output.splitlines()}
    assert list(rows) == ["name", *place.lock]
    states = {"vggish": "verified", "passt": "wrong", "imagebind": "present"}
    for name in place.lock:
        profiles = ("vggsound", "vggsound_small", "magnet")
        users = ", ".join(one for one in profiles if name in place.settings(one).needed_weights()) or "-"
        assert rows[name].endswith(f" {states.get(name, 'missing'):8}  {users}")
    assert " CC-BY-NC-SA-4.0 " in rows["imagebind"]
    assert " no " in rows["imagebind"]


def test_verify_tells_missing_and_wrong_files(place):
    assert place.run("verify") == (
        0, "nothing to verify: profile mini needs no official weights, and weights holds none of weights.lock.yaml\n"
    )  # fmt: skip
    nothing = (0, "nothing to verify: profile mini needs no official weights\n")
    assert place.run("verify", "--profile", "mini") == nothing
    place.run("fetch", "vggish", "passt")
    assert place.run("verify") == (0, "passt: verified\nvggish: verified\n")
    path = Path("weights/vggish-10086976.pth")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    code, output = place.run("verify", "vggish", "passt", "clap")
    assert code == 1
    assert "passt: verified" in output
    assert "vggish: weights/vggish-10086976.pth: expected sha256" in output
    assert "missing; run `specmaskfoley weights fetch clap`" in output
    code, output = place.run("verify", "--profile", "vggsound")
    assert code == 1
    assert output.count("missing; run") == len(place.settings().needed_weights()) - 2


def test_verify_full_looks_at_the_bytes_again(place):
    place.run("fetch", "vggish")
    path = Path("weights/vggish-10086976.pth")
    stat = path.stat()
    path.write_bytes(b"?" + path.read_bytes()[1:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert place.run("verify", "vggish")[0] == 0
    assert place.run("verify", "vggish", "--full")[0] == 1


def test_fetch_for_a_profile_tells_restrictions_and_problems(place):
    assert place.run("fetch") == (0, "profile mini needs no official weights\n")
    code, output = place.run("fetch", "--profile", "vggsound")
    assert code == 0
    assert "no commercial use of imagebind: CC-BY-NC-SA-4.0" in output
    assert "vggish: weights/vggish-10086976.pth, " in output
    del place.lock["hifigan_universal_v1"]["url"]
    place.lock["hifigan_universal_v1"]["by_hand"] = "ask for it"
    place.write()
    code, output = place.run("fetch", "hifigan_universal_v1", "specvqgan_melgan")
    assert code == 1
    assert "ask for it, and put it at weights/hifigan_universal_v1/g_02500000" in output
    assert Path("weights/specvqgan_melgan/best_netG.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "vgg"], "vgg: not in weights.lock.yaml"),
        (["verify", "vgg"], "vgg: not in weights.lock.yaml"),
        (["fetch", "--profile", "big"], "--profile=big: not in"),
        (["fetch", "vggish", "--profile", "vggsound"], "name files or a profile, not both"),
        (["fetch", "--colour"], "No such option"),
    ],
)
def test_mistakes_are_usage_errors(place, arguments, message):
    code, output = place.run(*arguments)
    assert code == 2
    assert message in output


def test_settings_that_are_wrong_are_usage_errors(place):
    place.params["weights"]["retries"] = -1
    place.write()
    for verb in ("list", "fetch", "verify"):
        code, output = place.run(verb)
        assert (code, "weights.retries" in output) == (2, True)
    (place.root / "params.yaml").unlink()
    assert place.run("list")[0] == 2


def run_stage() -> None:
    runpy.run_path(str(ROOT / "stages/fetch_weights.py"), run_name="__main__")


@pytest.fixture
def stage(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(sys, "argv", ["fetch_weights.py"])
    Path("data").mkdir()
    return place


def test_the_stage_needs_nothing_for_mini(stage):
    run_stage()
    assert json.loads(Path("data/weights.json").read_text()) == {}
    assert stage.web.requests == []
    assert not Path("weights").exists()


def test_the_stage_writes_the_same_list_from_network_and_bundle(stage, tmp_path_factory, capsys):
    stage.params["profile"] = "vggsound"
    stage.write()
    run_stage()
    assert "fetch_weights: no commercial use of dfn5b_clip: Apple" in capsys.readouterr().out
    text, asked = Path("data/weights.json").read_text(), len(stage.web.requests)
    found = json.loads(text)
    assert set(found) == set(stage.settings().needed_weights())
    assert found["vggish"] == {
        "file": "vggish-10086976.pth",
        "size": stage.lock["vggish"]["size"],
        "sha256": stage.lock["vggish"]["sha256"],
        "licence": "Apache-2.0",
    }
    run_stage()
    assert Path("data/weights.json").read_text() == text
    bundle = tmp_path_factory.mktemp("bundle") / "weights"
    Path("weights").rename(bundle)
    stage.params["weights"]["bundle"] = str(bundle)
    stage.write()
    run_stage()
    assert Path("data/weights.json").read_text() == text
    assert len(stage.web.requests) == asked


def test_the_stage_fails_in_one_line_a_file(stage, capsys):
    stage.params["profile"] = "vggsound"
    stage.write()
    stage.web.usual = Answer(status=404)
    with pytest.raises(SystemExit) as caught:
        run_stage()
    assert caught.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "HTTP 404" in line]
    assert re.match(r"error: synchformer: http.*HTTP 404", lines[0])
    assert len(lines) == len(stage.settings().needed_weights())
    assert not Path("data/weights.json").exists()
