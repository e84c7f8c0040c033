"""The console command `specmaskfoley weights`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from specmaskfoley.commands.project import enter
from specmaskfoley.errors import one_line_errors
from specmaskfoley.settings import Params
from specmaskfoley.settings.reading import parse_yaml
from specmaskfoley.storage.files import show_size
from specmaskfoley.weights.fetching import fetch, restrictions, transfer_of
from specmaskfoley.weights.lock import LOCK_FILE, Lock, locked, read_lock
from specmaskfoley.weights.records import checked, state_of

_COMMERCIAL = {"allowed": "yes", "forbidden": "no", "see_licence": "see licence"}


def table(params_file: Path) -> list[str]:
    """All files as lines: what for, how large, under which licence, and whether they are here."""
    params, lock = _load(params_file)
    profiles = _profiles(params_file)
    rows = [("name", "role", "size", "licence", "commercial use", "state", "profiles")]
    for name, entry in lock.items():
        users = [profile for profile, settings in profiles.items() if name in settings.needed_weights()]
        size, state = show_size(entry.size), state_of(_path(name, params, lock), entry)
        commercial, used_by = _COMMERCIAL[entry.commercial], ", ".join(users) or "-"
        rows.append((name, entry.role, size, entry.licence, commercial, state, used_by))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def fetch_wanted(names: Sequence[str], profile: str | None, params_file: Path) -> list[str]:
    """Bring files, and lines that say where they are; the program ends with exit code 1 if one cannot be had."""
    params, lock = _load(params_file)
    wanted = _wanted(names, profile, params, params_file, lock)
    if not wanted:
        return [_needs_none(profile or params.profile)]
    with one_line_errors(1):
        records = fetch(wanted, lock, params.weights.folder, transfer_of(params.weights), params.weights.bundle)
    found = [f"{name}: {_path(name, params, lock)}, {show_size(record.size)}" for name, record in records.items()]
    return [*found, *restrictions(wanted, lock)]


def verify(names: Sequence[str], profile: str | None, params_file: Path, *, full: bool) -> bool:
    """Print of each file whether it is the right one; whether all are.

    Args:
        full: hash again what was hashed before.
    """
    params, lock = _load(params_file)
    wanted = _wanted(names, profile, params, params_file, lock)
    if not names and not profile:
        wanted += [name for name in lock if name not in wanted and _path(name, params, lock).exists()]
    if not wanted:
        nothing = "" if profile else f", and {params.weights.folder} holds none of {LOCK_FILE}"
        typer.echo(f"nothing to verify: {_needs_none(profile or params.profile)}{nothing}")
    failed = 0
    for name in wanted:
        path = _path(name, params, lock)
        try:
            if not path.exists():
                raise ValueError(f"{path}: missing; run `specmaskfoley weights fetch {name}`")
            checked(path, lock[name], anew=full)
        except (ValueError, OSError) as error:
            failed += 1
            typer.echo(f"{name}: {error}", err=True)
        else:
            typer.echo(f"{name}: verified")
    return not failed


def _needs_none(profile: str) -> str:
    return f"profile {profile} needs no official weights"


def _load(params_file: Path) -> tuple[Params, Lock]:
    """Settings and lock; paths in both count from their folder, which becomes the current one."""
    return enter(params_file), read_lock()


def _path(name: str, params: Params, lock: Lock) -> Path:
    return Path(params.weights.folder) / lock[name].file


def _profiles(params_file: Path) -> dict[str, Params]:
    """Every profile's settings."""
    raw = parse_yaml(Path(params_file.name).read_text(encoding="utf-8"))
    return {name: Params.from_mapping({**raw, "profile": name}, str(params_file)) for name in raw["profiles"]}


def _wanted(names: Sequence[str], profile: str | None, params: Params, params_file: Path, lock: Lock) -> list[str]:
    if names and profile:
        raise ValueError("name files or a profile, not both")
    if names:
        wanted = list(names)
    elif profile:
        profiles = _profiles(params_file)
        if profile not in profiles:
            raise ValueError(f"--profile={profile}: not in {params_file} (known: {', '.join(profiles)})")
        wanted = list(profiles[profile].needed_weights())
    else:
        wanted = list(params.needed_weights())
    for name in wanted:
        locked(name, lock)
    return list(dict.fromkeys(wanted))
