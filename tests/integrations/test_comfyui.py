"""The nodes for ComfyUI, as ComfyUI loads and calls them. ComfyUI itself is not installed here."""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ROOT

from specmaskfoley.foley import Foley

FOLDER = ROOT / "integrations" / "comfyui"
IMAGES = np.random.default_rng(2).integers(0, 256, (30, 40, 64, 3), np.uint8)


def load() -> ModuleType:
    """As ComfyUI loads a folder of nodes: from its file, under its path as name."""
    spec = importlib.util.spec_from_file_location(str(FOLDER), FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NODES = load()
CLASSES = NODES.NODE_CLASS_MAPPINGS
every_node = pytest.mark.parametrize("node", CLASSES.values(), ids=CLASSES)


def inputs_of(node: type) -> dict[str, tuple[str, dict[str, Any]]]:
    """All inputs of a node by name: type and options."""
    kinds = node.INPUT_TYPES()
    assert set(kinds) <= {"required", "optional", "hidden"}
    assert "required" in kinds
    return {**kinds["required"], **kinds.get("optional", {})}


def call(name: str, **given: Any) -> tuple[Any, ...]:
    """What ComfyUI does: widgets that nobody touched have their defaults, and all goes by name."""
    node = CLASSES[name]
    defaults = {name: options["default"] for name, (_, options) in inputs_of(node).items() if "default" in options}
    with torch.inference_mode():
        made = getattr(node(), node.FUNCTION)(**{**defaults, **given})
    assert isinstance(made, tuple)
    assert len(made) == len(node.RETURN_TYPES)
    return made


@pytest.fixture(scope="module")
def loaded(model: Path) -> Foley:
    return call("SpecMaskFoleyLoadModel", folder=str(model))[0]


@every_node
def test_a_node_says_what_comfyui_asks(node: type):
    parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters.values()
    named = {one.name for one in parameters}
    assert any(one.kind is one.VAR_KEYWORD for one in parameters) or set(inputs_of(node)) < named
    outputs = (node.RETURN_TYPES, node.RETURN_NAMES, node.OUTPUT_TOOLTIPS)
    assert all(isinstance(one, tuple) and all(isinstance(text, str) for text in one) for one in outputs)
    assert len({len(one) for one in outputs}) == 1
    assert node.CATEGORY
    assert node.DESCRIPTION
    for name, (kind, options) in inputs_of(node).items():
        assert options["tooltip"], name
        if kind in ("INT", "FLOAT"):
            assert options["min"] <= options["default"] <= options["max"], name
            assert type(options["default"]) is {"INT": int, "FLOAT": float}[kind], name


def test_every_node_has_a_name_for_people():
    assert set(NODES.NODE_DISPLAY_NAME_MAPPINGS) == set(CLASSES)


def test_images_become_audio(loaded: Foley, model: Path):
    images = torch.from_numpy(IMAGES) / 255
    audio, said = call("SpecMaskFoleySoundForVideo", model=loaded, images=images, fps=15.0, text="playing drum", seed=5)
    assert set(audio) == {"waveform", "sample_rate"}
    assert isinstance(audio["sample_rate"], int)
    assert audio["waveform"].dtype == torch.float32
    assert audio["waveform"].shape == (1, 1, 2 * audio["sample_rate"])
    take = Foley.load(model).generate(IMAGES, fps=15, text="playing drum", seed=5)[0]
    np.testing.assert_array_equal(audio["waveform"][0, 0], take.waveform)
    assert said == take.level.sentence


def test_a_video_becomes_audio(loaded: Foley):
    """ComfyUI's VIDEO has its frames, rate and sound in `get_components`."""
    images = torch.from_numpy(IMAGES) / 255
    parts = SimpleNamespace(images=images, frame_rate=Fraction(15), audio=None)
    video = SimpleNamespace(get_components=lambda: parts)
    of_video, of_images = (
        call("SpecMaskFoleySoundForVideo", model=loaded, **given)[0]["waveform"]
        for given in ({"video": video, "fps": 24.0}, {"images": images, "fps": 15.0})
    )
    assert torch.equal(of_video, of_images)


def test_images_may_be_transparent_and_a_little_out_of_range(loaded: Foley):
    images = torch.from_numpy(IMAGES) / 255
    beyond = torch.where(images == 1, 1.02, torch.where(images == 0, -0.02, images))
    plain, other = (
        call("SpecMaskFoleySoundForVideo", model=loaded, images=given, fps=15.0)[0]["waveform"]
        for given in (images, torch.cat([beyond, beyond[..., :1]], dim=-1))
    )
    assert torch.equal(plain, other)


def test_the_best_of_several_takes_is_given_and_all_are_judged(loaded: Foley):
    images = torch.from_numpy(IMAGES) / 255
    audio, said = call("SpecMaskFoleySoundForVideo", model=loaded, images=images, fps=15.0, takes=2, text="a whale")
    lines = said.splitlines()
    assert '"a whale" is not among the' in lines[0]
    assert [line[:8] for line in lines[2:]] in (["1. seed 0", "2. seed 1"], ["1. seed ", "2. seed "])
    best = int(lines[2].split(":")[0].removeprefix("1. seed "))
    alone = call("SpecMaskFoleySoundForVideo", model=loaded, images=images, fps=15.0, seed=best, text="a whale")[0]
    assert torch.equal(audio["waveform"], alone["waveform"])


def test_words_alone_become_audio(loaded: Foley):
    audio, _ = call("SpecMaskFoleySoundFromText", model=loaded, text="playing drum", seconds=1.5)
    assert audio["waveform"].shape[-1] == round(1.5 * audio["sample_rate"])
    parts = "0-1: playing drum\n1-2: dog barking\n"
    in_parts, _ = call("SpecMaskFoleySoundFromText", model=loaded, text=parts, seconds=2.0)
    assert in_parts["waveform"].shape[-1] == 2 * audio["sample_rate"]


def test_steps_and_scale_take_the_place_of_the_models(loaded: Foley):
    waves = [
        call("SpecMaskFoleySoundFromText", model=loaded, text="playing drum", seconds=1.0, **given)[0]["waveform"]
        for given in ({}, {"steps": 2}, {"cfg_scale": 0.0}, {"negative": "dog barking"}, {"seed": 1})
    ]
    assert len({wave.numpy().tobytes() for wave in waves}) == 5


def test_the_model_says_what_it_knows(model: Path):
    foley, sounds = call("SpecMaskFoleyLoadModel", folder=f" {model}\n")
    assert sounds == foley.knowledge.sentence
    assert "playing drum" in sounds


def test_other_nodes_have_torch_as_before(model: Path, loaded: Foley):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(before[0] + 1)
    torch.use_deterministic_algorithms(False)
    try:
        call("SpecMaskFoleyLoadModel", folder=str(model))
        call("SpecMaskFoleySoundFromText", model=loaded, text="playing drum", seconds=1.0)
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (before[0] + 1, False)
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=True)


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The two things that the nodes take of ComfyUI, as it has them."""
    state = SimpleNamespace(bar=[], interrupt_at=101, error=type("InterruptProcessingException", (Exception,), {}))

    class ProgressBar:
        def __init__(self, total: int) -> None:
            state.total = total

        def update_absolute(self, value: int) -> None:
            state.bar.append(value)

    def throw_exception_if_processing_interrupted() -> None:
        if state.bar and state.bar[-1] >= state.interrupt_at:
            raise state.error

    for name in ("comfy", "comfy.utils", "comfy.model_management"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["comfy.utils"].ProgressBar = ProgressBar
    sys.modules[
        "comfy.model_management"
    ].throw_exception_if_processing_interrupted = throw_exception_if_processing_interrupted
    return state


def test_the_bar_moves_and_cancelling_ends_the_work(loaded: Foley, comfy: SimpleNamespace):
    call("SpecMaskFoleySoundFromText", model=loaded, text="playing drum", seconds=2.0)
    assert comfy.bar == sorted(comfy.bar)
    assert comfy.bar[-1] == comfy.total
    assert len(set(comfy.bar)) > 3
    comfy.bar.clear()
    comfy.interrupt_at = 30
    with pytest.raises(comfy.error):
        call("SpecMaskFoleySoundFromText", model=loaded, text="playing drum", seconds=2.0)
    assert comfy.bar[-1] < 60


def test_mistakes_are_named(loaded: Foley, tmp_path: Path):
    images = torch.zeros(3, 8, 8, 3)
    for name, given, message in (
        ("LoadModel", {"folder": " "}, "name the folder"),
        ("LoadModel", {"folder": str(tmp_path / "no")}, "no"),
        ("SoundForVideo", {}, "connect either images or video"),
        ("SoundForVideo", {"images": images, "video": SimpleNamespace()}, "connect either images or video"),
        ("SoundForVideo", {"images": images[:0]}, "there are no frames"),
        ("SoundForVideo", {"images": images * float("nan")}, "frame 0 has values from nan"),
        ("SoundFromText", {"seconds": 1.0}, "needs a text"),
    ):
        more = {} if name == "LoadModel" else {"model": loaded}
        with pytest.raises(ValueError, match=message):
            call(f"SpecMaskFoley{name}", **more, **given)


def test_a_script_of_nothing_but_the_nodes(model: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location("pack", {str(FOLDER / "__init__.py")!r})
pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
assert not any(name.split(".")[0].startswith("comfy") for name in sys.modules)
nodes = pack.NODE_CLASS_MAPPINGS
model, sounds = nodes["SpecMaskFoleyLoadModel"]().load({str(model)!r})
images = torch.rand(25, 33, 47, 3, generator=torch.Generator().manual_seed(0))
audio, said = nodes["SpecMaskFoleySoundForVideo"]().generate(
    model=model, images=images, fps=25.0, text="", negative="", seed=0, steps=0, cfg_scale=-1.0, takes=1
)
print(tuple(audio["waveform"].shape), audio["sample_rate"], said)
""",
        encoding="utf-8",
    )
    run = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("(1, 1, 22050) 22050 ")


def test_the_example_fits_the_nodes():
    """Types of links, names of inputs, and values of widgets."""
    graph = json.loads((FOLDER / "example_workflows" / "sound_for_video.json").read_text(encoding="utf-8"))
    kinds = {node["id"]: node for node in graph["nodes"]}
    ours = [node for node in graph["nodes"] if node["type"] in CLASSES]
    assert {node["type"] for node in ours} == {"SpecMaskFoleyLoadModel", "SpecMaskFoleySoundForVideo"}
    for _, source, slot, target, place, kind in graph["links"]:
        made, taken = kinds[source]["outputs"][slot], kinds[target]["inputs"][place]
        assert made["type"] == kind
        assert taken["type"] in (kind, "*")
        if kinds[source] in ours:
            assert CLASSES[kinds[source]["type"]].RETURN_TYPES[slot] == kind
        if kinds[target] in ours:
            assert inputs_of(CLASSES[kinds[target]["type"]])[taken["name"]][0] == kind
    for node in ours:
        widgets = [
            value
            for name, (kind, options) in inputs_of(CLASSES[node["type"]]).items()
            if kind in ("STRING", "INT", "FLOAT")
            for value in [name, *(["control"] if options.get("control_after_generate") else [])]
        ]
        assert len(node["widgets_values"]) == len(widgets)
