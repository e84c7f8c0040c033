"""params.schema.json: in step with the settings, and of the same opinion as they about params.yaml."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from helpers import ROOT
from helpers.settings import MISSING, RAW, changed

from specmaskfoley.settings import Params
from specmaskfoley.settings.schema import FILE, params_schema

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
SCHEMA: dict[str, Any] = json.loads((ROOT / FILE).read_text(encoding="utf-8"))


def refused(raw: dict[str, Any]) -> bool:
    try:
        Params.from_mapping(raw)
    except ValueError:
        return True
    return False


def test_the_file_is_what_the_settings_give() -> None:
    assert params_schema(RAW["profiles"]) == SCHEMA, f"run python -m specmaskfoley.settings.schema, and commit {FILE}"
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_editors_find_it() -> None:
    assert TEXT.splitlines()[0] == f"# yaml-language-server: $schema={FILE}"


def test_params_yaml_meets_it() -> None:
    assert not list(jsonschema.Draft7Validator(SCHEMA).iter_errors(RAW))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cfg.scale", 3.0),
        ("cfg.scale", None),
        ("cfg", None),
        ("sample.steps", 6),
        ("sample.steps", [6]),
        ("profiles.mini_1d.sample.steps", [8, 4, 2, 2]),
        ("data.limit", None),
        ("evaluate.seeds", 3),
        ("run.device", "cuda:1"),
        ("weights.mirror", {"https://a/": "https://b/"}),
        ("profiles.mini.train_codec.adversarial_weight", 1),
        ("profiles.mini.judges.sync_classes", 5),
        ("profiles.mini.audio.normalize", 0.95),
        ("run.micro_batch", MISSING),
    ],
)
def test_what_runs_is_right(name: str, value: object) -> None:
    raw = changed({name: value})
    assert not refused(raw)
    assert not list(jsonschema.Draft7Validator(SCHEMA).iter_errors(raw))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cgf", {"scale": 3.0}),
        ("cfg.scael", 3.0),
        ("cfg.scale", -1.0),
        ("cfg.mode", "multy"),
        ("cfg.start", 1.5),
        ("sample.steps", 0),
        ("sample.steps", "6"),
        ("sample.steps", [6, 0]),
        ("sample.steps", []),
        ("profiles.mini.backbone.kind", "magnets"),
        ("profiles.mini.control.alignment", "place"),
        ("seed", -1),
        ("data.source", "youtub"),
        ("data.limit", {"trian": 3}),
        ("run.precision", "half"),
        ("fetch.workers", MISSING),
        ("evaluate.min_coverage", 1.01),
        ("profiles", MISSING),
        ("profile", MISSING),
        ("profiles.mini.profile", "mini"),
        ("profiles.mini.cfg.scale", None),
        ("profiles.mini.audio.hop_lenght", 256),
        ("profiles.mini.encoders.sync.kind", "synchformr"),
        ("profiles.mini.encoders.sync.channels", []),
        ("profiles.mini.vocoder.iterations", 12.5),
        ("profiles.mini.judges.train_sync.steps", 0),
        ("profiles.mini.judges.train_sinc", {}),
        ("profiles.mini.train_codec.codebook_decay", 2.0),
    ],
)
def test_a_mistake_is_seen_where_it_is(name: str, value: object) -> None:
    raw = changed({name: value})
    assert refused(raw)
    errors = list(jsonschema.Draft7Validator(SCHEMA).iter_errors(raw))
    places = {".".join(map(str, part.absolute_path)) for error in errors for part in (error, *(error.context or ()))}
    assert places & {name, name.rpartition(".")[0]}
