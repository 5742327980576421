"""Merges parameters from several checkpoints by rules like PAXml's init-from-checkpoint rules.

A specification `CKPT:RULES` names a checkpoint and what is taken from it. RULES is a list of
regular expressions over PAXml's names (`params/lm/softmax/logits_ffn_item/.*`), separated by
commas, or a TOML or YAML file with

    load = [["params/(.*)$", "params/{}"]]     # target pattern, source name with its groups
    ignore = ["params/lm/softmax/item_.*"]     # targets that keep their own values
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from converters.arrays import Array
from converters.errors import MappingError
from converters.rules import read_document

PREFIX = "params/"
# The last colon that begins neither `://` nor a group `(?:`.
_ALSO = re.compile(r"(?P<place>.+)(?<!\(\?):(?!//)(?P<rules>(?:[^:]|(?<=\(\?):)+)")


@dataclass(frozen=True)
class LoadRules:
    """PAXml's `CheckpointLoadingRules` (paxml/tasks_lib.py), restricted to parameters.

    Attributes:
        load: (pattern of the target's name, format of the source's name); the first match applies.
        ignore: patterns of targets that are left as they are.
    """

    load: tuple[tuple[re.Pattern[str], str], ...]
    ignore: tuple[re.Pattern[str], ...] = ()

    def source(self, target: str) -> str | None:
        """The name in the other checkpoint that fills `target`; None if nothing does."""
        if any(pattern.match(target) for pattern in self.ignore):
            return None
        for pattern, name in self.load:
            found = pattern.match(target)
            if found:
                return name.format(*found.groups())
        return None


def split_also(text: str) -> tuple[str, str]:
    """Split `CKPT:RULES` into (checkpoint, rules).

    Raises:
        MappingError: the text contains no rules.
    """
    found = _ALSO.fullmatch(text)
    if found is None:
        raise MappingError(
            f"--also {text}: write CKPT:RULES, where RULES is a file or patterns such as "
            "params/lm/softmax/logits_ffn_item/.*"
        )
    return found["place"], found["rules"]


def load_rules(text: str) -> LoadRules:
    """Parse the rules in a file, or patterns separated by commas.

    Raises:
        MappingError: a pattern or the file cannot be parsed.
    """
    try:
        if Path(text).suffix in (".toml", ".yaml", ".yml", ".json"):
            found = read_document(text)
            if extra := sorted(set(found) - {"load", "ignore"}):
                raise MappingError(f"{text}: unknown key {', '.join(extra)}; known: load, ignore")
            load = tuple((re.compile(target), str(name)) for target, name in found.get("load", []))
            for pattern, name in load:
                name.format(*[""] * pattern.groups)  # a field that no group fills is an error now
            return LoadRules(load, tuple(map(re.compile, found.get("ignore", []))))
        return LoadRules(tuple((re.compile(f"({p})$"), "{}") for p in text.split(",")))
    except (re.error, TypeError, ValueError, LookupError, AttributeError) as error:
        raise MappingError(f"{text}: not a list of patterns: {error}") from error


def merge(
    base: Mapping[str, Array], other: Mapping[str, Array], rules: LoadRules, url: str
) -> tuple[dict[str, Array], list[str]]:
    """Replace parameters of `base` by those of `other`, and add those that `base` lacks.

    Args:
        base, other: parameter path (without `params/`) -> array.
        rules: which parameters are taken.
        url: the address of `other`, for messages.

    Returns:
        The merged parameters, and the paths of those taken from `other`.

    Raises:
        MappingError: nothing is taken, sources are missing, or shapes differ; lists all problems.
    """
    merged, taken, problems = dict(base), [], []
    for path in {**base, **other}:
        source = rules.source(PREFIX + path)
        if source is None:
            continue
        array = other.get(source.removeprefix(PREFIX))
        if array is None:
            problems.append(f"{path}: {url} has no {source}")
        elif path in base and base[path].shape != array.shape:
            problems.append(
                f"{path}: {url} gives {list(array.shape)}, the first checkpoint has "
                f"{list(base[path].shape)}"
            )
        else:
            merged[path] = array
            taken.append(path)
    if not taken and not problems:
        problems.append("no parameter matches the rules")
    if problems:
        raise MappingError("\n  ".join([f"--also {url}: {len(problems)} problem(s):", *problems]))
    return merged, taken
