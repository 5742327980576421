"""Parser for the text of a JAX PyTreeDef, the only place where FLAX checkpoints name their leaves.

`PyTreeDef(CustomNode(TrainState[()], [*, {'params': ...}, [(CustomNode(NestedMap[('count',)], ...`
(jaxlib `pytree.cc`, `PyTreeDef::ToString`). The parser is a recursive descent in linear time; the
text is never evaluated.
"""

import re
from dataclasses import dataclass, field

from converters.errors import CheckpointError
from converters.paxml.names import TRAIN_STATE, join

MAX_DEPTH = 128  # real states are 25 levels deep; a deeper text is damaged
MASKED = {
    "MaskedNode",
    "BpropMaskedNode",
}  # of optax and praxis.py_utils: they stand for a leaf that is left out
# Fields of the NamedTuple states that Praxis and Optax put into `opt_states`; the text omits them.
FIELDS = {
    "TrainState": TRAIN_STATE,
    "ShardedAdafactorState": ("count", "m", "m_scale", "vr", "vc", "v"),
    "TraceState": ("trace",),
    "ScaleByScheduleState": ("count",),
    "ScaleByAdamState": ("count", "mu", "nu"),
    "ScaleByAmsgradState": ("count", "mu", "nu", "nu_max"),
    "ScaleByBeliefState": ("count", "mu", "nu"),
    "ScaleByLionState": ("count", "mu"),
    "ScaleByRmsState": ("nu",),
    "ScaleByRStdDevState": ("mu", "nu"),
    "ScaleByRssState": ("sum_of_squares",),
    "ScaleByTrustRatioState": (),
    "FactoredState": ("count", "v_row", "v_col", "v"),
    "EmaState": ("count", "ema"),
    "AddNoiseState": ("count", "rng_key"),
    "MaskedState": ("inner_state",),
    "ApplyIfFiniteState": ("notfinite_count", "last_finite", "total_notfinite", "inner_state"),
    "MultiStepsState": ("mini_step", "gradient_step", "inner_opt_state", "acc_grads", "skip_state"),
    "MultiTransformState": ("inner_states",),
    "PartitionState": ("inner_states",),
    "InjectHyperparamsState": ("count", "hyperparams", "inner_state"),
    "InjectStatefulHyperparamsState": (
        "count",
        "hyperparams",
        "hyperparams_states",
        "inner_state",
    ),
}

_TEXT = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_KEY = re.compile(rf"\s*({_TEXT}|[^\s:,'\"{{}}\[\]()]+)\s*:\s*", re.DOTALL)
_TYPE = re.compile(r"\s*(?:<class '([^']*)'>|([\w.<>]+))")
_BALANCE = re.compile(rf"{_TEXT}|[\[\](){{}}]", re.DOTALL)
_SPACE = re.compile(r"\s*")
_TEXTS = re.compile(_TEXT, re.DOTALL)
_TEXT_LIST = re.compile(rf"\s*[\[(]\s*(?:(?:{_TEXT})\s*,?\s*)*[\])]\s*", re.DOTALL)
_ESCAPED = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}


@dataclass(frozen=True)
class TreeDef:
    """Structure of a state.

    Attributes:
        leaves: canonical path of each leaf, in the order of the flattened state.
        masked: paths of MaskedNode and None nodes below the top level.
        empty: paths of empty containers.
        unnamed: paths of custom nodes of unknown type, whose children are numbered.
    """

    leaves: tuple[str, ...]
    masked: tuple[str, ...]
    empty: tuple[str, ...]
    unnamed: tuple[str, ...]


def parse_treedef(text: str, where: str = "treedef") -> TreeDef:
    """Parse the text of a PyTreeDef.

    Args:
        text: `str(PyTreeDef)` of a `TrainState`.
        where: the file that `text` comes from, for messages.

    Raises:
        CheckpointError: `text` is not that of a PyTreeDef; the message says at which character.
    """
    parser = _Parser(text, where)
    parser.expect("PyTreeDef(")
    parser.node((), 0)
    parser.expect(")")
    if parser.position != len(text):
        parser.fail("text follows the end of the tree")
    return TreeDef(
        tuple(parser.leaves), tuple(parser.masked), tuple(parser.empty), tuple(parser.unnamed)
    )


@dataclass
class _Parser:
    text: str
    where: str
    position: int = 0
    leaves: list[str] = field(default_factory=list)
    masked: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)

    def node(self, keys: tuple[str, ...], depth: int) -> None:
        """Read one node and all nodes below it."""
        if depth > MAX_DEPTH:
            self.fail(f"nested deeper than {MAX_DEPTH} levels")
        if self.accept("*"):
            self.leaves.append(self._path(keys))
        elif self.accept("None"):
            (self.masked if len(keys) > 1 else self.empty).append(self._path(keys))
        elif self.accept("CustomNode("):
            self._custom(keys, depth)
        elif self.accept("{"):
            self._dict(keys, depth)
        elif self.accept("["):
            self._items(keys, depth, "]", ())
        elif self.accept("("):
            self._items(keys, depth, ")", ())
        else:
            self.fail("expected a leaf '*', None, a container or CustomNode")

    def accept(self, token: str) -> bool:
        """Step over `token` if it comes next, and say whether it did."""
        start = self._skip()
        if not self.text.startswith(token, start):
            return False
        self.position = start + len(token)
        return True

    def expect(self, token: str) -> None:
        """Step over `token`, which must come next."""
        if not self.accept(token):
            self.fail(f"expected {token!r}")

    def fail(self, cause: str) -> None:
        """Raise `CheckpointError` for the current position."""
        found = self.text[self.position : self.position + 40]
        raise CheckpointError(
            f"{self.where}: the tree's text (str_pytree_state) cannot be read at character "
            f"{self.position} ({found!r}): {cause}"
        )

    def _dict(self, keys: tuple[str, ...], depth: int) -> None:
        if self.accept("}"):
            self.empty.append(self._path(keys))
            return
        while True:
            found = _KEY.match(self.text, self.position)
            if found is None:
                self.fail("expected a key and ':'")
                return
            self.position = found.end()
            self.node((*keys, _unquote(found[1])), depth + 1)
            if self.accept("}"):
                return
            self.expect(",")

    def _items(self, keys: tuple[str, ...], depth: int, close: str, names: tuple[str, ...]) -> None:
        """Read children up to `close`; they get `names` as far as those suffice, then numbers."""
        index = 0
        while not self.accept(close):
            if index:
                self.expect(",")
                if self.accept(close):  # the comma of a tuple of one
                    break
            name = names[index] if index < len(names) else str(index)
            self.node((*keys, name), depth + 1)
            index += 1
        if not index:
            self.empty.append(self._path(keys))

    def _custom(self, keys: tuple[str, ...], depth: int) -> None:
        """Read `Type[data], [children])`; the opening `CustomNode(` has been read already."""
        found = _TYPE.match(self.text, self.position)
        if found is None:
            self.fail("expected the type of a custom node")
            return
        kind = (found[1] or found[2]).rpartition(".")[2]
        self.position = found.end()
        data = self._data() if self.accept("[") else ""
        if kind == "namedtuple":
            kind = data.removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
            data = ""
        self.expect(",")
        self.expect("[")
        if kind in MASKED:
            self.expect("]")
            self.expect(")")
            self.masked.append(self._path(keys))
            return
        names = FIELDS.get(kind)
        if names is None and _TEXT_LIST.fullmatch(data):  # NestedMap, FrozenDict: data are its keys
            names = tuple(_unquote(text) for text in _TEXTS.findall(data))
        before = self.position
        self._items(keys, depth, "]", names or ())
        if not names and self.text[before : self.position].strip() != "]":
            self.unnamed.append(self._path(keys))
        self.expect(")")

    def _data(self) -> str:
        """The text up to the ']' that closes a node's data."""
        start, depth = self.position, 1
        for token in _BALANCE.finditer(self.text, start):
            if token[0] in "[({":
                depth += 1
            elif token[0] in "])}":
                depth -= 1
            if not depth:
                self.position = token.end()
                return self.text[start : token.start()]
        self.fail("the data of a custom node has no end")
        return ""

    def _path(self, keys: tuple[str, ...]) -> str:
        return join(keys, f"{self.where}: {'/'.join(keys)}")

    def _skip(self) -> int:
        found = _SPACE.match(self.text, self.position)
        return found.end() if found else self.position


def _unquote(text: str) -> str:
    """The value of a Python string literal; a bare word is returned unchanged."""
    if text[0] not in "'\"":
        return text
    return _ESCAPED.sub(_unescape, text[1:-1])


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    return chr(int(code[1:], 16)) if len(code) > 1 else _ESCAPES.get(code, code)
