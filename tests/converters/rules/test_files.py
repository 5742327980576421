"""Users' rule tables and other documents: TOML, YAML and JSON say the same; faults are all told."""

from pathlib import Path

import pytest

from converters.errors import MappingError
from converters.rules.files import read_document, read_table
from converters.rules.language import Ignore, Rule

TOML = """
[[rule]]
target = "layers_{i}/kernel"
source = "x_{i}/w"
op = "transpose 1 0"

[[rule]]
target = "bias"
source = "b"
optional = true

[[ignore]]
source = "ngrammer/{rest*}"
reason = "not used"
"""
YAML = """
rule:
  - {target: "layers_{i}/kernel", source: "x_{i}/w", op: transpose 1 0}
  - target: bias
    source: b
    optional: true
ignore:
  - source: ngrammer/{rest*}
    reason: not used
"""
JSON = """
{"rule": [{"target": "layers_{i}/kernel", "source": "x_{i}/w", "op": "transpose 1 0"},
          {"target": "bias", "source": "b", "optional": true}],
 "ignore": [{"source": "ngrammer/{rest*}", "reason": "not used"}]}
"""


def written(place: Path, name: str, text: str) -> Path:
    (place / name).write_text(text)
    return place / name


@pytest.mark.parametrize(
    ("name", "text"), [("t.toml", TOML), ("t.yaml", YAML), ("t.yml", YAML), ("t.json", JSON)]
)
def test_each_format_gives_the_same_table(name: str, text: str, tmp_path: Path):
    assert read_table(written(tmp_path, name, text)) == (
        [
            Rule("layers_{i}/kernel", "x_{i}/w", "transpose 1 0", required=True),
            Rule("bias", "b", required=False),
        ],
        [Ignore("ngrammer/{rest*}", "not used")],
    )


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[[rules]]\ntarget = 'a'", ["'rules' is neither 'rule' nor 'ignore'"]),
        ("rule = 'a'\nignore = 3", ["'rule' is not a list; write [[rule]]", "'ignore' is not"]),
        ("[rule]\ntarget = 'a'\nsource = 'b'", ["'rule' is not a list; write [[rule]]"]),
        ("rule = ['a']", ["rule 1: lacks source, target"]),
        (
            "[[rule]]\ntarget = 'a'\noperation = 'b'\n[[ignore]]\nsource = 'c'",
            ["rule 1: lacks source", "rule 1: unknown key operation", "ignore 1: lacks reason"],
        ),
        (
            "[[rule]]\ntarget = 3\nsource = ['b']\nop = 1\noptional = 'no'",
            ["rule 1: source is no text", "rule 1: target is no text", "rule 1: op is no text",
             "rule 1: optional is no truth value: 'no'"],
        ),
        (
            "[[rule]]\ntarget = 'a'\nsource = 'b'\nop = 'turn'",
            ["The rule table has 1 problem", "a <- b (turn): unknown operation 'turn'"],
        ),
    ],
)  # fmt: skip
def test_every_fault_is_told_with_the_file(text: str, lines: list[str], tmp_path: Path):
    file = written(tmp_path, "table.toml", text)
    with pytest.raises(MappingError, match=f"^{file}: ") as caught:
        read_table(file)
    for line in lines:
        assert line in str(caught.value)


def test_a_document_that_is_not_there(tmp_path: Path):
    with pytest.raises(MappingError, match=r"none\.toml: cannot be read: .*No such file"):
        read_document(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.toml", b"a = "),
        ("a.yaml", b"a: [1"),
        ("a.json", b"{"),
        ("a.yaml", b"a: !!python/name:os"),
    ],
)
def test_a_document_that_cannot_be_parsed(name: str, data: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MappingError, match=f"{name}: cannot be parsed"):
        read_document(tmp_path / name)


def test_a_document_that_is_no_text(tmp_path: Path):
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(MappingError, match=r"a\.toml: cannot be read"):
        read_document(tmp_path / "a.toml")


@pytest.mark.parametrize("text", ["- a\n- b", "3", "", "null"])
def test_a_document_that_is_no_mapping(text: str, tmp_path: Path):
    with pytest.raises(MappingError, match="holds no mapping"):
        read_document(written(tmp_path, "a.yaml", text))
