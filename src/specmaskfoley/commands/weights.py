"""The console command `specmaskfoley weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specmaskfoley.commands.project import enter
from specmaskfoley.errors import one_line_errors
from specmaskfoley.settings import Params
from specmaskfoley.settings.reading import parse_yaml
from specmaskfoley.storage.files import show_size
from specmaskfoley.weights.lock import Lock, locked, read_lock
from specmaskfoley.weights.records import checked, state_of

app = typer.Typer(no_args_is_help=True, help="Official weight files, which weights.lock.yaml lists.")

_COMMERCIAL = {"allowed": "yes", "forbidden": "no", "see_licence": "see licence"}
_PARAMS = Path("params.yaml")

Names = Annotated[list[str] | None, typer.Argument(help="Names in weights.lock.yaml.", show_default=False)]
Profile = Annotated[str | None, typer.Option(help="All that this profile needs.", show_default=False)]
ParamsFile = Annotated[Path, typer.Option("--params", help="Settings; weights.lock.yaml lies beside them.")]


@app.command("list")
def show(params_file: ParamsFile = _PARAMS) -> None:
    """All files: what for, how large, under which licence, and whether they are here (hashes nothing)."""
    params, lock = _load(params_file)
    profiles = _profiles(params_file)
    rows = [("name", "role", "size", "licence", "commercial use", "state", "profiles")]
    for name, entry in lock.items():
        users = [profile for profile, settings in profiles.items() if name in settings.needed_weights()]
        size, state = show_size(entry.size), state_of(_path(name, params, lock), entry)
        commercial, used_by = _COMMERCIAL[entry.commercial], ", ".join(users) or "-"
        rows.append((name, entry.role, size, entry.licence, commercial, state, used_by))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command("fetch")
def get(names: Names = None, profile: Profile = None, params_file: ParamsFile = _PARAMS) -> None:
    """Download files, or take them from weights.bundle, and check them.

    By default all that the active profile needs. A transfer that broke off goes on where it stopped.
    """
    # Not at the top: `generate --help` need not wait for the HTTP library.
    from specmaskfoley.weights.fetching import fetch, restrictions, transfer_of

    params, lock = _load(params_file)
    wanted = _wanted(names, profile, params, params_file, lock)
    transfer = transfer_of(params.weights)
    if not wanted:
        typer.echo(f"profile {profile or params.profile} needs no official weights")
    with one_line_errors(1):
        records = fetch(wanted, lock, params.weights.folder, transfer, params.weights.bundle)
    for name, record in records.items():
        typer.echo(f"{name}: {_path(name, params, lock)}, {show_size(record.size)}")
    for line in restrictions(wanted, lock):
        typer.echo(line)


@app.command()
def verify(
    names: Names = None,
    profile: Profile = None,
    full: Annotated[bool, typer.Option("--full", help="Hash again what was hashed before.")] = False,
    params_file: ParamsFile = _PARAMS,
) -> None:
    """Check files against weights.lock.yaml; by default those that are here and those that the active profile needs."""
    params, lock = _load(params_file)
    wanted = _wanted(names, profile, params, params_file, lock)
    if not names and not profile:
        wanted += [name for name in lock if name not in wanted and _path(name, params, lock).exists()]
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
    if failed:
        raise typer.Exit(1)


def _load(params_file: Path) -> tuple[Params, Lock]:
    """Settings and lock; paths in both count from their folder, which becomes the current one."""
    return enter(params_file), read_lock()


def _path(name: str, params: Params, lock: Lock) -> Path:
    return Path(params.weights.folder) / lock[name].file


def _profiles(params_file: Path) -> dict[str, Params]:
    """Every profile's settings."""
    raw = parse_yaml(Path(params_file.name).read_text(encoding="utf-8"))
    return {name: Params.from_mapping({**raw, "profile": name}, str(params_file)) for name in raw["profiles"]}


def _wanted(names: list[str] | None, profile: str | None, params: Params, params_file: Path, lock: Lock) -> list[str]:
    if names and profile:
        raise ValueError("name files or a profile, not both")
    if names:
        wanted = names
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
