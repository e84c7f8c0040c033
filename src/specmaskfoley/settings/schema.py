"""The JSON schema of params.yaml, by which editors complete and check it; made from the settings.

    python -m specmaskfoley.settings.schema          # writes params.schema.json

What depends on several settings at once is checked by `Params` alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from specmaskfoley.settings.params import OVERRIDING, Params
from specmaskfoley.settings.reading import parse_yaml

FILE = "params.schema.json"


def params_schema(profiles: Iterable[str]) -> dict[str, Any]:
    """A section stands at the top level or under the profiles; those of OVERRIDING at both, with null for no value.

    Args:
        profiles: names that editors offer as `profile`; others are allowed too.
    """
    whole = _without_titles(Params.model_json_schema())
    sections, definitions = whole["properties"], whole["$defs"]
    name = sections.pop("profile") | {"examples": list(profiles)}
    definitions["Profile"] = {"type": "object", "additionalProperties": False, "properties": sections}
    top = {"profile": name, **sections, "profiles": {"type": "object", "additionalProperties": _ref("Profile")}}
    for section in OVERRIDING:
        definitions[f"Top_{section}"] = _overriding(definitions[sections[section]["$ref"].rpartition("/")[2]])
        top[section] = _or_null(_ref(f"Top_{section}"))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "params.yaml of SpecMaskFoley",
        "type": "object",
        "additionalProperties": False,
        "required": ["profile", "profiles"],
        "properties": top,
        "$defs": definitions,
    }


def _overriding(section: dict[str, Any]) -> dict[str, Any]:
    """A section of which any value may be left out or null."""
    values = {
        name: _or_null({key: part for key, part in value.items() if key != "default"})
        for name, value in section["properties"].items()
    }
    return {key: part for key, part in section.items() if key != "required"} | {"properties": values}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _without_titles(schema: Any) -> Any:
    """pydantic repeats every name as a title, and editors would show both."""
    if isinstance(schema, dict):
        return {
            key: _without_titles(part) for key, part in schema.items() if key != "title" or not isinstance(part, str)
        }
    return [_without_titles(part) for part in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    known = parse_yaml(Path("params.yaml").read_text(encoding="utf-8"))["profiles"]
    Path(FILE).write_text(json.dumps(params_schema(known), indent=2) + "\n", encoding="utf-8")
