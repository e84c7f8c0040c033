"""README.md and docs/: links, files, commands and settings that they name exist."""

from __future__ import annotations

import copy
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from helpers import ROOT
from hydra.core.override_parser.overrides_parser import OverridesParser

from specmaskfoley.commands.main import app
from specmaskfoley.report.published import PAPER_SAMPLING, published_settings
from specmaskfoley.settings import Params
from specmaskfoley.tracking import flatten

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


def commands(page: Path, start: str) -> Iterator[list[str]]:
    """The words after `start` of every such command, in blocks of code and in lines of text."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for command in re.findall(rf"^    {start}\b(.*)$|`{start}\b([^`]*)`", text, re.MULTILINE):
        yield list(itertools.takewhile(lambda word: word != "&&", shlex.split("".join(command), comments=True)))


def settings_of(words: list[str]) -> Iterator[Params]:
    """What `dvc exp run` makes of its options -S: an experiment for each combination of values."""
    options = [after.partition("=") for word, after in itertools.pairwise(words) if word == "-S"]
    choices = [value.split(",") if value[:1] not in "[{" else [value] for _, _, value in options]
    for values in itertools.product(*choices):
        raw = copy.deepcopy(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
        for (name, _, _), value in zip(options, values, strict=True):
            *sections, last = name.split(".")
            section = raw
            for key in sections:
                section = section[key]
            assert last in section, name
            section[last] = OverridesParser.create().parse_override(f"{name}={value}").value()
        yield Params.from_mapping(raw)


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
        keys = re.sub(r"^profiles\.\w+\.", "", name).split(".")
        assert keys[-1] in FILE_ENDINGS or has_setting(schema, keys, schema), name


@on_every_page
def test_experiments_that_are_named_have_good_settings(page):
    for words in commands(page, "dvc exp run"):
        assert list(settings_of(words)), words


@on_every_page
def test_timings_that_are_named_have_good_options(page):
    bench = typer.main.get_command(app).commands["bench"]
    for words in commands(page, "specmaskfoley bench"):
        given = bench.make_context("bench", words).params
        params = Params.load(ROOT / "params.yaml", given["profile"])
        params.sampling.changed(mode=given["mode"] or params.cfg.mode, steps=given["steps"] or params.sample.steps)


@pytest.mark.parametrize("profile", ["mini", "vggsound"])
def test_every_row_of_the_papers_table_2_has_its_command(profile):
    page = ROOT / "docs" / "paper_profile.md"
    found = [one for words in commands(page, "dvc exp run") if "--queue" in words for one in settings_of(words)]
    runs = set()
    for one in found:
        settings = flatten({"cfg": dict(one.cfg), "sample": dict(one.sample)})
        if one.profile == profile and settings.items() >= PAPER_SAMPLING.items():
            runs.add((one.cfg.mode, one.sample.steps))
    assert runs >= {(row.mode or "multi", int(row.steps)) for row in published_settings()}
    timed = {
        tuple(words[words.index(name) + 1] for name in ("--mode", "--steps"))
        for words in commands(page, "specmaskfoley bench")
    }
    assert timed >= {(row.mode or "text", row.steps) for row in published_settings()}


def test_the_readme_names_the_pythons_that_pip_accepts():
    """pip's own answer to another one is that no torch was found."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "torch==2.11.0" in project["dependencies"]  # which decides it
    assert project["requires-python"] == ">=3.11,<3.15"
    assert "Python 3.11 to 3.14" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_design_names_every_room():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    table = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert [room for room in rooms if not re.search(rf"^\|.*`{room}`.* \|", table, re.MULTILINE)] == []
