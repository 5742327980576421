"""Rule tables that users write, as TOML or YAML, without any Python.

    [[rule]]
    target = "layers_{i}/attention/query/kernel"
    source = "lm/transformer/x_layers_{i}/self_attention/query/w"
    op = "transpose 0 2 1"          # may be left out

    [[ignore]]
    source = "lm/ngrammer/{rest*}"
    reason = "not used any more"

Paths are relative to the parameters (`mdl_vars/params/`). Every rule must match a leaf, unless it
has `optional = true`.
"""

import tomllib
from pathlib import Path
from typing import Any

from converters.errors import MappingError
from converters.rules.language import Ignore, Rule, check_rules

_KEYS = {
    "rule": ({"target", "source"}, {"op", "optional"}),
    "ignore": ({"source", "reason"}, set()),
}


def read_table(path: str | Path) -> tuple[list[Rule], list[Ignore]]:
    """Read the rules and the ignored leaves from a file.

    Raises:
        MappingError: the file cannot be read, or is not a rule table; lists all faults.
    """
    found = read_document(path)
    problems = [f"'{key}' is neither 'rule' nor 'ignore'" for key in found if key not in _KEYS]
    for kind, (required, optional) in _KEYS.items():
        entries = found.get(kind, [])
        if not isinstance(entries, list):
            problems.append(f"'{kind}' is not a list; write [[{kind}]]")
            continue
        for number, entry in enumerate(entries, 1):
            keys = set(entry) if isinstance(entry, dict) else set()
            if missing := sorted(required - keys):
                problems.append(f"{kind} {number}: lacks {', '.join(missing)}")
            if extra := sorted(keys - required - optional):
                problems.append(f"{kind} {number}: unknown key {', '.join(extra)}")
            for key in sorted(keys & (required | optional)):
                wanted, name = (bool, "truth value") if key == "optional" else (str, "text")
                if not isinstance(entry[key], wanted):
                    problems.append(f"{kind} {number}: {key} is no {name}: {entry[key]!r}")
    if problems:
        raise MappingError("\n  ".join([f"{path}: not a rule table:", *problems]))
    rules = [
        Rule(r["target"], r["source"], r.get("op", ""), required=not r.get("optional", False))
        for r in found.get("rule", [])
    ]
    ignores = [Ignore(entry["source"], entry["reason"]) for entry in found.get("ignore", [])]
    try:
        check_rules([*rules, *ignores])
    except MappingError as error:
        raise MappingError(f"{path}: {error}") from error
    return rules, ignores


def read_document(path: str | Path) -> dict[str, Any]:
    """Read a TOML, YAML or JSON file (told apart by its suffix) as a mapping.

    Raises:
        MappingError: the file cannot be read or parsed, or is not a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(f"{path}: cannot be read: {error}") from error
    try:
        if path.suffix == ".toml":
            found: Any = tomllib.loads(text)
        else:
            import yaml

            try:
                found = yaml.safe_load(text)  # JSON is YAML too
            except yaml.YAMLError as error:
                raise ValueError(str(error)) from error
    except ValueError as error:
        raise MappingError(f"{path}: cannot be parsed: {error}") from error
    if not isinstance(found, dict):
        raise MappingError(f"{path}: holds no mapping from names to values")
    return found
