"""What a result depends on: the code that can reach it, the settings it reads, its input files.

DVC does not see imports. Stage `lineage` therefore writes one small file a stage, with a line for each source file that
the stage can reach, and every other stage lists its file as a dependency. Work that outlives a run (`.work/`:
unfinished trainings, extracted rows, judged sounds) gets its key from the same analysis.

The unit is a definition: a function, a class, a constant. From a stage's script the analysis follows every name to the
definition that it stands for. Definitions are compared as syntax trees without comments, docstrings, layout,
annotations and `print`, so better words run nothing again.

- A dict such as {"hifigan": "specmaskfoley.vocoders.hifigan:HiFiGAN"} is a registry, read by `pkgutil.resolve_name`.
  Only entries that a setting named in CHOOSERS picks are followed.
- Settings enter by value (dvc.yaml lists them). Of the code in `settings/` only properties, methods and default values
  count, and only those whose name reached code mentions.
- A string that names a file beside the module (a template, a style sheet) stands for the bytes of that file.
- OBSERVERS watch a stage and never change what it writes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from specmaskfoley.settings import Params

OBSERVERS = ("specmaskfoley", "specmaskfoley.tracking", "specmaskfoley.sampling.listening", "specmaskfoley.lineage")
"""Modules that never change what a stage writes: how its threads wait, MLflow, sounds drawn during training for people
to hear, and this."""

CHOOSERS = ("kind", "source", "engine")
"""Names of settings by which registries are read."""

FREE = ("checkpoint_every", "validate_every", "listen_every")
"""When a training keeps or looks at something; these settings may change while it is unfinished."""

HARMLESS = frozenset({
    "run.workers", "run.launch", "run.compile", "run.micro_batch", "run.checkpoint_minutes", "run.engine",
    "run.unit_clips", "fetch.workers", "fetch.retries", "fetch.interval_s", "fetch.timeout_s",
})  # fmt: skip
"""How a stage runs, never what it makes: dvc.yaml does not list these settings."""

DECISIVE_RUN = ("run.precision",)
"""The settings under `run` that count for unfinished work: it may go on with other devices, threads and processes."""

_PACKAGE = "specmaskfoley"
_ROOT = Path(__file__).resolve().parents[2]
_SETTINGS = f"{_PACKAGE}.settings"
_IMPORT_PATH = re.compile(rf"({_PACKAGE}(?:\.\w+)*):(\w+)")
_FILE_NAME = re.compile(r"[\w-]+(\.[\w-]+)+")
_BODY = "<module>"
"""Statements of a module that define nothing: they run when it is imported."""

_WHOLE = "*"
"""All definitions of a module."""

_Ref = tuple[str, str]
"""(module, definition)"""


# ---------------------------------------------------------------------- one stage, one kept piece of work


def stage_code(stage: str, params: Params) -> dict[str, str]:
    """Source file -> hash of what stage `stage` can reach in it, sorted by file."""
    return _Reach(_chosen(params)).follow([(f"stages.{stage}", _BODY)]).hashes()


def stage_key(stage: str, params: Params) -> str:
    """Key of a stage's unfinished work: its code, and the settings and inputs that dvc.yaml lists for it.

    Raises:
        ValueError: an input does not exist.
    """
    found = _graph()["stages"][stage]
    values = {name: _value(params, name) for name in map(_shortened(params), found.get("params", ())) if _counts(name)}
    code = _filled(params.paths.code, params)
    inputs = [item for item in (_filled(str(dep), params) for dep in found["deps"]) if not item.startswith(f"{code}/")]
    return _digest(stage_code(stage, params), _without(values, FREE), inputs)


def kept_key(
    code: Iterable[Callable[..., Any]], settings: Any, params: Params, inputs: Iterable[str | os.PathLike[str]] = ()
) -> str:
    """Key of work that is kept for later runs: whatever `code` (functions and classes) can reach, `settings` (anything
    JSON can hold, sections of params.yaml included) and the bytes of `inputs`.

    Raises:
        ValueError: an input does not exist.
    """
    roots = [(item.__module__, item.__qualname__) for item in code]
    return _digest(_Reach(_chosen(params)).follow(roots).hashes(), settings, inputs)


def stages() -> list[str]:
    """Every stage that has a script, but for `lineage` itself."""
    names = {file.stem for file in _ROOT.glob("stages/*.py")}
    return sorted(names - {"lineage", "own_code"})


def _digest(code: Mapping[str, str], settings: Any, inputs: Iterable[str | os.PathLike[str]]) -> str:
    """16 hex digits. A directory counts with the names and contents of all files under it."""
    digest = hashlib.sha256(json.dumps([code, settings], sort_keys=True, default=_jsonable).encode())
    for item in inputs:
        path = Path(item)
        if not path.exists():
            raise ValueError(f"{path}: no such file or directory; run the earlier stages first: dvc repro")
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            name = file.relative_to(path).as_posix() if path.is_dir() else ""
            digest.update(f"\0{name}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"settings of a key must be JSON-able, found {type(value).__name__}")


# ---------------------------------------------------------------------- settings


def _graph() -> dict[str, Any]:
    graph: dict[str, Any] = yaml.safe_load((_ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return graph


def _filled(text: str, params: Params) -> str:
    """dvc.yaml's ${a.b} replaced by settings."""
    return re.sub(r"\$\{([\w.]+)\}", lambda match: str(_value(params, match[1])), text)


def _shortened(params: Params) -> Callable[[str], str]:
    """Names in dvc.yaml as names of the merged settings: profiles.mini.audio is audio."""
    return lambda name: _filled(name, params).removeprefix(f"profiles.{params.profile}.")


def _value(params: Params, name: str) -> Any:
    value: Any = params
    for part in name.split("."):
        value = getattr(value, part, None)
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _counts(name: str) -> bool:
    return not name.startswith("run.") or name in DECISIVE_RUN


def _without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, names) for key, item in value.items() if key not in names}
    return value


def _chosen(params: Params) -> frozenset[str]:
    """The values of all CHOOSERS."""
    return frozenset(_choices(params.model_dump(mode="json")))


def _choices(section: dict[str, Any]) -> Iterator[str]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _choices(value)
        elif name in CHOOSERS:
            yield value


# ---------------------------------------------------------------------- code


@dataclass
class _Module:
    """One source file: its definitions, and what its imports stand for."""

    name: str
    file: Path
    definitions: dict[str, list[ast.AST]] = field(default_factory=lambda: defaultdict(list))
    imports: dict[str, set[_Ref]] = field(default_factory=lambda: defaultdict(set))
    loaded: list[_Ref] = field(default_factory=list)
    """Modules of the project that it imports as such: their statements run."""

    def take(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Import() | ast.ImportFrom() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass
            case ast.ClassDef(name=name) if self.name.startswith(_SETTINGS):
                self.definitions[name] = []
                for member, node in _members(statement):
                    self.definitions[f"{name}.{member}"].append(node)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                self.definitions[name].append(statement)
            case _ if not _silent(statement):
                simple = isinstance(statement, ast.Assign | ast.AnnAssign)
                targets = getattr(statement, "targets", None) or [getattr(statement, "target", statement)]
                names = _bound(targets if simple else [statement])
                for name in names or [_BODY]:
                    self.definitions[name].append(statement)
                if names and not simple:  # such as `try: import fcntl`, `except ImportError: fcntl = None`
                    self.definitions[_BODY].append(statement)

    def take_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                if _find(alias.name) is not None:
                    self.imports[alias.asname or alias.name].add((alias.name, _WHOLE))
                    self.loaded.append((alias.name, _WHOLE))
            elif node.module and _find(node.module) is not None:
                inner = f"{node.module}.{alias.name}"
                target = (inner, _WHOLE) if _find(inner) is not None else (node.module, alias.name)
                self.imports[alias.asname or alias.name].add(target)


@dataclass
class _Reach:
    """The definitions that were reached, as text, by module and name."""

    chosen: frozenset[str]
    found: dict[_Ref, str] = field(default_factory=dict)
    attributes: set[str] = field(default_factory=set)

    def follow(self, roots: Iterable[_Ref]) -> _Reach:
        todo = list(roots)
        while todo:
            while todo:
                todo += self._visit(*todo.pop())
            todo = [ref for ref in _settings_members() if ref[1].split(".")[1] in self.attributes]
            todo = [ref for ref in todo if ref not in self.found]
        return self

    def hashes(self) -> dict[str, str]:
        files: dict[str, list[str]] = defaultdict(list)
        for (name, definition), text in self.found.items():
            if text:
                files[_module(name).file.relative_to(_ROOT).as_posix()].append(f"{definition}\0{text}")
        return {
            file: hashlib.sha256("\0".join(sorted(files[file])).encode()).hexdigest()[:16] for file in sorted(files)
        }

    def _visit(self, name: str, definition: str) -> list[_Ref]:
        """Take up a definition; what it refers to."""
        if (name, definition) in self.found or name in OBSERVERS or _find(name) is None:
            return []
        module = _module(name)
        if definition == _WHOLE:
            return [(name, each) for each in (*module.definitions, _BODY)]
        if definition not in module.definitions and definition != _BODY:
            return list(module.imports.get(definition, ()))  # from elsewhere
        self.found[name, definition], attributes, refs = _read(name, definition, self.chosen)
        self.attributes |= attributes
        return [*refs, *module.loaded, (name, _BODY)]


@cache
def _read(name: str, definition: str, chosen: frozenset[str]) -> tuple[str, set[str], list[_Ref]]:
    """A definition as text, the attributes that it mentions, and what it refers to."""
    module = _module(name)
    text = _Text(module, chosen)
    found = "\n".join(text.of(node) for node in module.definitions.get(definition, ()))
    return found, text.attributes, text.refs


class _Text:
    """Syntax trees as text that is the same for the same meaning, in every version of Python."""

    def __init__(self, module: _Module, chosen: frozenset[str]) -> None:
        self._module, self._chosen = module, chosen
        self._locals: set[str] = set()
        self.refs: list[_Ref] = []
        self.attributes: set[str] = set()

    def of(self, value: Any, typed: bool = False) -> str:
        """
        Args:
            typed: annotations count, as in a class of settings, which are checked by them.
        """
        match value:
            case list():
                return "[" + ",".join(self.of(item, typed) for item in value if not _silent(item)) + "]"
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if modules := self._modules(name):
                self.refs += [(module, attribute) for module in modules]
                return f"{name}.{attribute}"
            case ast.Attribute(attr=attribute):
                self.attributes.add(attribute)
            case ast.Name(id=name) if name not in self._locals:
                self.refs += self._module.imports.get(name, ())
                if name in self._module.definitions:
                    self.refs.append((self._module.name, name))
            case ast.Constant(value=str(text)):
                return self._string(text)
            case ast.ClassDef(bases=bases):
                typed = any(isinstance(base, ast.Name) and base.id in ("Settings", "BaseModel") for base in bases)
            case ast.Dict():
                value = self._chosen_entries(value)
            case ast.AST():
                pass
            case _:
                return repr(value)
        skipped = _SKIPPED if typed else _SKIPPED | _ANNOTATIONS
        outer, inner = self._locals, self._locals | _locals(value)
        fields = []
        for name, item in ast.iter_fields(value):
            if name not in skipped and item is not None and item != []:
                self._locals = outer if name in _OUTSIDE else inner
                fields.append(f"{name}={self.of(item, typed)}")
        self._locals = outer
        return f"{type(value).__name__}({','.join(fields)})"

    def _modules(self, name: str) -> list[str]:
        if name in self._locals:
            return []
        return [module for module, definition in self._module.imports.get(name, ()) if definition == _WHOLE]

    def _string(self, text: str) -> str:
        if match := _IMPORT_PATH.fullmatch(text):
            self.refs.append((match[1], match[2]))
        beside = self._module.file.with_name(text) if _FILE_NAME.fullmatch(text) else None
        if beside is not None and beside.suffix != ".py" and beside.is_file():
            return hashlib.sha256(beside.read_bytes()).hexdigest()
        return repr(text)

    def _chosen_entries(self, node: ast.Dict) -> ast.Dict:
        """Of a registry the entries that settings choose; all of one that is not read by a setting."""
        entries = [
            (key, value)
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant) and isinstance(value, ast.Constant) and _is_import_path(value.value)
        ]
        mine = [entry for entry in entries if entry[0].value in self._chosen]
        if not mine or len(entries) < len(node.keys):
            return node
        return ast.Dict([key for key, _ in mine], [value for _, value in mine])


_SKIPPED = frozenset({"ctx", "type_comment", "type_ignores", "type_params", "kind"})
_ANNOTATIONS = frozenset({"annotation", "returns"})
_OUTSIDE = frozenset({"args", "decorator_list"})
"""Parts of a function that are evaluated where it is defined."""


def _is_import_path(value: object) -> bool:
    return isinstance(value, str) and _IMPORT_PATH.fullmatch(value) is not None


def _silent(node: object) -> bool:
    """Docstrings and other bare texts, and what is only printed."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())) | ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
            return True
    return False


_SCOPES = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
)  # fmt: skip


def _bound(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that syntax trees bind themselves, those of functions and comprehensions within them left out."""
    found: set[str] = set()
    todo = list(nodes)
    while todo:
        match node := todo.pop():
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
        todo += [] if isinstance(node, _SCOPES) else ast.iter_child_nodes(node)
    return found


def _locals(scope: ast.AST) -> set[str]:
    """Names that stand for something else within a function or a comprehension than outside."""
    match scope:
        case ast.FunctionDef(args=given, body=body) | ast.AsyncFunctionDef(args=given, body=body):
            return {node.arg for node in ast.walk(given) if isinstance(node, ast.arg)} | _bound(body)
        case ast.Lambda(args=given):
            return {node.arg for node in ast.walk(given) if isinstance(node, ast.arg)}
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return _bound(part.target for part in scope.generators)
    return set()


def _members(settings: ast.ClassDef) -> Iterator[tuple[str, ast.AST]]:
    """Methods and properties of a section, and the default values of its keys; what only checks does not count."""
    for node in settings.body:
        match node:
            case ast.FunctionDef(name=name) if not name.startswith("_check"):
                yield name, node
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value


@cache
def _settings_members() -> list[_Ref]:
    files = sorted(_ROOT.glob(f"src/{_PACKAGE}/settings/*.py"))
    modules = [_module(f"{_SETTINGS}.{file.stem}") for file in files if file.stem != "__init__"]
    return [(module.name, name) for module in modules for name in module.definitions if "." in name]


@cache
def _find(name: str) -> Path | None:
    """The file of a module of this project."""
    base = _ROOT / "src" if name.split(".")[0] == _PACKAGE else _ROOT / "stages"
    path = base.joinpath(*name.removeprefix("stages.").split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _module(name: str) -> _Module:
    file = _find(name)
    assert file is not None
    module, tree = _Module(name, file), ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module.take_import(node)
    for statement in tree.body:
        module.take(statement)
    return module
