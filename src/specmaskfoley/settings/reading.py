"""YAML as DVC reads it: numbers as in YAML 1.2; and no key twice."""

from __future__ import annotations

import re
from typing import Any

import yaml

_DIGITS = list("-+.0123456789")
_NUMBERS = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp")}


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where 1e-4 is text, 010 is eight, 1:30 is ninety and 2026-05-01 no text."""

    yaml_implicit_resolvers = {  # noqa: RUF012, as PyYAML has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(f"line {line}: {key.value} is given twice, first in line {lines[key.value]}")
            lines[key.value] = line
        return super().construct_mapping(node, deep)

    def refuse_leading_zero(self, node: yaml.ScalarNode) -> None:
        value, line = node.value, node.start_mark.line + 1
        raise yaml.YAMLError(
            f"line {line}: {value} may be octal or decimal; write {int(value)}, or '{value}' if it is text"
        )


for _tag, _pattern in (
    ("!leading-zero", r"[-+]?0[0-9_]+"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9][0-9_]*|0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+"),
    ("tag:yaml.org,2002:float", r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"),
    ("tag:yaml.org,2002:float", r"\.(nan|NaN|NAN)"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})$"), _DIGITS)
_Loader.add_constructor("!leading-zero", _Loader.refuse_leading_zero)


def parse_yaml(text: str) -> Any:
    """What `text` holds.

    Raises:
        yaml.YAMLError: it is not YAML, a key is given twice in one mapping, or a number begins with a zero.
    """
    return yaml.load(text, _Loader)
