"""README.md and docs/: links, files, commands and settings that they name exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers import ROOT

from specmaskfoley.commands.main import app
from specmaskfoley.settings import Params

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
FILE_ENDINGS = ("py", "md", "json", "yaml", "parquet", "safetensors", "sqlite", "txt", "html", "toml")

on_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def sections_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def has_setting(schema: dict[str, Any], keys: list[str], whole: dict[str, Any]) -> bool:
    """Whether a JSON schema has the property a.b.c, in any of its alternatives."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    if not keys or any(has_setting(one, keys, whole) for kind in ("anyOf", "oneOf") for one in schema.get(kind, ())):
        return True
    inner = schema.get("properties", {}).get(keys[0])
    return inner is not None and has_setting(inner, keys[1:], whole)


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 160


@on_every_page
def test_relative_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in sections_of(target), link


@on_every_page
def test_every_page_can_be_reached_from_the_readme(page):
    assert page == README or f"](docs/{page.name})" in README.read_text(encoding="utf-8")


@on_every_page
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for file in re.findall(r"\b((?:tests|benchmarks|stages)/[\w/]+\.py)\b", text):
        assert (ROOT / file).is_file() or Path(file).stem == "NAME" or Path(file).stem == "STAGE", file


@on_every_page
def test_commands_that_are_named_exist(page):
    known = set(typer.main.get_command(app).commands)
    for line in re.findall(r"^    .*$|`[^`\n]+`", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert set(re.findall(r"\bspecmaskfoley ([a-z]+)", line)) <= known, line


@on_every_page
def test_settings_that_are_named_exist(page):
    schema = Params.model_json_schema()
    sections = "|".join(schema["properties"])
    text = page.read_text(encoding="utf-8")
    named = re.findall(rf"`((?:{sections})(?:\.\w+)+)[`=:]", text) + re.findall(r"-S '?([\w.]+)=", text)
    for name in named:
        keys = name.split(".")
        assert keys[-1] in FILE_ENDINGS or has_setting(schema, keys, schema), name


def test_the_design_names_every_room():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    table = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert [room for room in rooms if not re.search(rf"^\|.*`{room}`.* \|", table, re.MULTILINE)] == []
