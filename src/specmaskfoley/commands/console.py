"""How commands show their help and their errors: as plain lines, which fit a log as well as a terminal."""

from __future__ import annotations

import io
import sys
from typing import Any

import typer
import typer.core

from specmaskfoley.errors import one_line_errors


class Command(typer.core.TyperCommand):
    """A command whose help names what a value is, and not its type; `rich_help_panel` is the title of a group."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                own = "Arguments" if param.param_type_name == "argument" else "Options"
                title = getattr(param, "rich_help_panel", None) or own
                name = record[0].partition(" <")[0] if own == "Arguments" else record[0]
                groups.setdefault(title, []).append((name, record[1]))
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


class Commands(typer.core.TyperGroup):
    """Commands, listed with their whole first sentences. A mistake of the user ends one with a line and exit code 2."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
            formatter.write_dl([(name, one.get_short_help_str(limit=1000)) for name, one in found.items() if one])

    def invoke(self, ctx: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: no name of a file may end a command
        with one_line_errors(2):
            return super().invoke(ctx)


def commands(**given: Any) -> typer.Typer:
    """A group of commands; those that it is given must be of the class `Command`."""
    return typer.Typer(
        cls=Commands,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"max_content_width": 100},
        **given,
    )
