"""Weights from disk fit the settings they were trained with, and whoever changes one is told which."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import ROOT

from specmaskfoley.backbone.trained import backbone_description, build_backbone, load_backbone
from specmaskfoley.codec.specvqgan.network import SpecVQGAN
from specmaskfoley.codec.trained import codec_description, load_codec
from specmaskfoley.control.trained import build_control, control_description, load_control
from specmaskfoley.encoders.trained import ROLES, build_encoder, encoder_description, encoder_file, load_encoder
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import save_model

RAW: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
CPU = torch.device("cpu")

Load = Callable[[Params], object]


def params(**changes: Any) -> Params:
    """The mini profile with settings of dotted names (`__` for the dot) replaced."""
    raw = copy.deepcopy(RAW)
    for name, value in changes.items():
        *path, last = name.split("__")
        section = raw["profiles"]["mini"]
        for part in path:
            section = section[part]
        assert last in section
        section[last] = value
    return Params.from_mapping(raw)


def codec(made: Params) -> object:
    return load_codec(made, CPU)


def backbone(made: Params) -> object:
    return load_backbone(made, CPU)


def control(made: Params) -> object:
    return load_control(build_backbone(made), made, CPU)


def encoders(made: Params) -> object:
    return [load_encoder(role, made, CPU) for role in ROLES.values()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model file that the default settings give."""
    folder = tmp_path_factory.mktemp("trained")
    made = params()
    paths = made.paths
    new = build_backbone(made)
    save_model(folder / paths.codec, SpecVQGAN(made.codec), **codec_description(made))
    save_model(folder / paths.backbone, new, **backbone_description(made))
    save_model(folder / paths.control, build_control(new, made), **control_description(made))
    for role in ROLES:
        save_model(
            folder / encoder_file(made, role), build_encoder(ROLES[role], made), **encoder_description(made, role)
        )
    return folder


@pytest.mark.parametrize("load", [codec, backbone, control, encoders])
def test_models_load_with_the_settings_they_were_made_with(trained, monkeypatch, load: Load):
    monkeypatch.chdir(trained)
    load(params())


@pytest.mark.parametrize(
    ("load", "changes", "file", "setting"),
    [
        pytest.param(codec, {"codec__codebook_size": 128}, "codec", "codebook_size", id="codec"),
        pytest.param(codec, {"audio__num_mels": 64}, "codec", "num_mels", id="codec-mels"),
        pytest.param(backbone, {"codec__codebook_size": 128}, "backbone", "codebook_size", id="backbone-codes"),
        pytest.param(backbone, {"audio__duration_s": 4.0}, "backbone", "token_columns", id="backbone-length"),
        # Heads change no shape: without the comparison the weights would load and mean something else.
        pytest.param(backbone, {"backbone__heads": 8}, "backbone", '"heads": 8', id="backbone-heads"),
        pytest.param(backbone, {"encoders__prompt__width": 32}, "backbone", "prompt_width", id="backbone-prompt"),
        pytest.param(control, {"encoders__sync__width": 32}, "control", "sync_width", id="control-sync"),
        pytest.param(control, {"encoders__semantic__width": 32}, "control", "semantic_width", id="control-semantic"),
        pytest.param(control, {"backbone__heads": 8}, "control", '"heads": 8', id="control-heads"),
        pytest.param(control, {"audio__duration_s": 4.0}, "control", "token_columns", id="control-length"),
        pytest.param(encoders, {"encoders__sync__width": 32}, "sync", '"width": 32', id="sync"),
        pytest.param(
            encoders, {"encoders__semantic__channels": [16, 64]}, "semantic", '"channels": [16, 64]', id="sem"
        ),
        pytest.param(encoders, {"encoders__prompt__blocks": 2}, "prompt", '"blocks": 2', id="prompt"),
        pytest.param(encoders, {"audio__num_mels": 64}, "sync", "num_mels", id="encoder-mels"),
    ],
)
def test_a_changed_setting_is_named_instead_of_loading(trained, monkeypatch, load: Load, changes, file, setting):
    monkeypatch.chdir(trained)
    with pytest.raises(ValueError, match=f"{file}.safetensors: was made with") as caught:
        load(params(**changes))
    assert setting in str(caught.value)
    assert "\n" not in str(caught.value)
