"""Reads PAXml's text dumps of a job's configuration: path -> Python value.

`model_params.txt` has sorted lines `path : value` (Praxis `nested_struct_to_text`) in sections that
blank lines separate: one section per input, the last one for the task (`model.…`,
`train.learner.…`). Values are quoted strings, numbers, True, lists, `NoneType` for None, and names
of types. Only literals in a dump are evaluated.
"""

import ast
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import CheckpointError

if TYPE_CHECKING:
    from converters.stores import Store

MODEL_PARAMS = "model_params.txt"
POST_INIT_PARAMS = "post_init_model_params.txt"  # the built layers; only used without the former
EXPERIMENT_VARS = "experiment_cls_vars.txt"  # class variables of the experiment
EXPERIMENT = "experiment."  # prefix of their paths in the result

_TYPE = re.compile(r"(?:type|callable)/(?P<module>[\w.]+)/(?P<name>[\w.<>]+)")
_CLASS = re.compile(r"<class '(?:(?P<module>[\w.]+)\.)?(?P<name>\w+)'>")  # paxml 1.0
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|inf|nan)")
_STRING = re.compile(r"""(['"])(?:\\.|(?!\1)[^\\])*\1""", re.DOTALL)


@dataclass(frozen=True)
class Symbol:
    """A type, function or opaque object that a dump names; `name` is the last component."""

    module: str
    name: str

    def __str__(self) -> str:
        """The dotted name, for messages."""
        return f"{self.module}.{self.name}" if self.module else self.name


def read_hparams(source: "Store | str | os.PathLike[str]") -> dict[str, Any]:
    """Read the dumps of a job.

    Args:
        source: the directory that holds them (the job's, or its `job_files`), or one of the files.

    Returns:
        path -> value of the task's section (`model.lm_tpl.model_dims` …), and the class variables
        of the experiment as `experiment.NAME`. Without `model_params.txt`, the values of the built
        layers in `post_init_model_params.txt`, under the same paths.

    Raises:
        CheckpointError: there is no dump, or a line is malformed (with file and line number).
    """
    store, names = _locate(source)
    texts = {name: _decode(store, name) for name in names if store.exists(name)}
    if not texts:
        raise CheckpointError(
            f"{store.url}: no dump of the job's configuration there; expected {MODEL_PARAMS}."
            " Give the directory that PAXml wrote it to with --job-files, or leave it out"
        )
    found: dict[str, Any] = {}
    for name, text in texts.items():
        where = f"{store.url}/{name}"
        if name == EXPERIMENT_VARS:
            found.update(parse_experiment(text))
        elif name == POST_INIT_PARAMS:
            from converters.paxml.infer.post_init import as_model_params

            found.update(as_model_params(parse_sections(text, where)[0]))
        else:
            found.update(_task_section(parse_sections(text, where), where))
    return found


def is_described(values: Mapping[str, Any] | None) -> bool:
    """Whether a job's dumps describe its model, beyond the experiment's class variables."""
    return any(path.startswith("model.") for path in values or {})


def parse_sections(text: str, where: str) -> list[dict[str, Any]]:
    """Parse the sections of a dump, each a mapping path -> value.

    Raises:
        CheckpointError: a line is not `path : value`, a string or list does not end, or a path is
            given twice.
    """
    sections: list[dict[str, Any]] = []
    fresh = True
    for number, line in _logical_lines(text, where):
        if not line.strip():
            fresh = True
            continue
        path, separator, value = line.partition(" : ")
        if not separator or not path or path != path.strip() or not value.strip():
            raise CheckpointError(
                f"{where}, line {number}: expected `path : value`, found {line[:80]!r}"
            )
        if fresh:
            sections.append({})
            fresh = False
        if path in sections[-1]:
            raise CheckpointError(f"{where}, line {number}: {path} is given twice")
        sections[-1][path] = parse_value(value)
    if not sections:
        raise CheckpointError(f"{where}: the file is empty")
    return sections


def parse_value(text: str) -> Any:
    """Parse one value; text that is neither a literal nor a type becomes a `Symbol`."""
    text = text.strip()
    if text == "NoneType":
        return None
    if text in ("True", "False"):
        return text == "True"
    if _STRING.fullmatch(text):
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    if _NUMBER.fullmatch(text):
        return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
    if named := _TYPE.fullmatch(text) or _CLASS.fullmatch(text):
        return Symbol(named["module"] or "", named["name"].rsplit(".", 1)[-1])
    if text[0] in "[({":
        try:
            return _without_none_type(ast.literal_eval(text))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return Symbol("", text)
    return Symbol("", text)


def parse_experiment(text: str) -> dict[str, Any]:
    """Parse `experiment_cls_vars.txt`: `NAME: value` lines under class names; the last one wins."""
    found = {}
    for line in text.splitlines():
        name, separator, value = line.strip().partition(": ")
        if separator and line[:1].isspace() and name.isidentifier() and value:
            found[EXPERIMENT + name] = None if value == "None" else _bare(value)
    return found


def _bare(text: str) -> Any:
    """A value written without quotes; text that is nothing else is a string."""
    value = parse_value(text)
    return text if isinstance(value, Symbol) and not value.module else value


def _locate(source: "Store | str | os.PathLike[str]") -> "tuple[Store, list[str]]":
    """The store to read from, and the names to look for in it; the later overrides the earlier."""
    from converters.stores import open_store

    if not isinstance(source, str | os.PathLike):
        store = source
    else:
        place = os.fspath(source).rstrip("/")
        if place.endswith(".txt"):
            parent, _, name = place.rpartition("/")
            return open_store(parent or "."), [name]
        store = open_store(place)
    main = MODEL_PARAMS if store.exists(MODEL_PARAMS) else POST_INIT_PARAMS
    return store, [EXPERIMENT_VARS, main]


def _decode(store: "Store", name: str) -> str:
    try:
        return store.read(name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{store.url}/{name}: not a text file ({error})") from error


def _task_section(sections: list[dict[str, Any]], where: str) -> Mapping[str, Any]:
    """The section of the task, which is the one with a model."""
    tasks = [part for part in sections if any(path.startswith("model.") for path in part)]
    if not tasks:
        raise CheckpointError(
            f"{where}: no section has `model.…` paths; found {list(sections[-1])[:3]} …:"
            " is this the dump of a PAXml task?"
        )
    return tasks[-1]


def _logical_lines(text: str, where: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; strings and arrays that span several lines are joined."""
    pending, start = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        pending = f"{pending}\n{line}" if pending else line
        start = start or number
        if _is_open(pending.partition(" : ")[2].strip()):
            continue
        yield start, pending
        pending, start = "", 0
    if pending:
        raise CheckpointError(
            f"{where}, line {start}: the value does not end before the file does: {pending[:80]!r};"
            " the file is cut off"
        )


def _is_open(value: str) -> bool:
    """Whether the value starts with a string or bracket that is not closed yet."""
    if value[:1] in ("'", '"'):
        return _STRING.fullmatch(value) is None
    if value[:1] not in ("[", "(", "{"):
        return False
    bare = _STRING.sub("", value)
    return sum(map(bare.count, "[({")) > sum(map(bare.count, "])}"))


def _without_none_type(value: Any) -> Any:
    """The value with None in place of the string 'NoneType', which dumps write within lists."""
    if isinstance(value, list | tuple):
        return type(value)(_without_none_type(item) for item in value)
    if isinstance(value, dict):
        return {key: _without_none_type(item) for key, item in value.items()}
    return None if value == "NoneType" else value
