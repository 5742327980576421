"""Options that several commands have: sizes, numbers, settings."""

import click
import pytest
from click.testing import CliRunner

from efficientids_flax.commands import command, echo
from efficientids_flax.commands.options import Ids, Real, Size, set_option, value_of


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 << 20), ("1GiB", 1 << 30), ("2GB", 2 * 10**9), ("1.5g", 15 * 10**8),
     ("2000000", 2 * 10**6), ("3 tib", 3 << 40), ("1048576b", 1 << 20)],
)  # fmt: skip
def test_sizes(text: str, size: int):
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize(("text", "message"), [("much", "is not a size"), ("5", "at least 1MiB")])
def test_wrong_sizes(text: str, message: str):
    with pytest.raises(click.BadParameter, match=message):
        Size().convert(text, None, None)


@pytest.mark.parametrize(("text", "ids"), [("1,2, 3", [1, 2, 3]), ("", []), ("-1", [-1])])
def test_ids(text: str, ids: list[int]):
    assert Ids().convert(text, None, None) == ids


def test_numbers_have_their_ranges():
    with pytest.raises(click.BadParameter, match="0 is less than 1"):
        Ids(least=1).convert("0,5", None, None)
    assert Real(min=0).convert("1e3", None, None) == 1000.0
    for text in ("inf", "nan"):
        with pytest.raises(click.BadParameter, match=f"'{text}' is no finite number"):
            Real(min=0).convert(text, None, None)


def test_what_is_no_id_is_named():
    with pytest.raises(click.BadParameter, match="'x' is not a whole number, in '1,x'"):
        Ids().convert("1,x", None, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("3.5e-4", 3.5e-4), (".9", 0.9), ("1.", 1.0), ("true", True), ("False", False),
        ("null", None), ("None", None), ("none", "none"), ("gelu", "gelu"), ('"a"', "a"),
        ("[20, 30]", [20, 30]), ("(1, 2)", (1, 2)), ("{'kind': 'x'}", {"kind": "x"}),
        ("runs/1", "runs/1"), ("1-2", "1-2"), ("", ""),
    ],
)  # fmt: skip
def test_values(text: str, value: object):
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


@command("probe")
@set_option("A setting.")
@click.option("--num-steps", type=int, default=0)
def probe(settings: dict[str, object], num_steps: int, as_json: bool) -> None:
    """Print what was given."""
    echo(as_json, {"settings": settings, "steps": num_steps}, f"{settings} {num_steps}",
         remark=True)  # fmt: skip


def run(*arguments: str) -> str:
    result = CliRunner().invoke(probe, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_settings_are_a_mapping_and_the_last_one_counts():
    assert run("--set", "a.b=1", "--set", "c=x=y", "--set", "a.b=2") == "{'a.b': 2, 'c': 'x=y'} 0\n"


@pytest.mark.parametrize("text", ["a", "=3"])
def test_a_setting_of_another_form_is_wrong_usage(text: str):
    result = CliRunner().invoke(probe, ["--set", text])
    assert result.exit_code == 2
    assert f"'{text}' is not KEY=VALUE" in result.stderr


def test_dashes_and_underscores_are_alike_in_names_alone():
    assert run("--num_steps", "3", "--set", "a_b=c_d") == "{'a_b': 'c_d'} 3\n"
    assert run("--num_steps=3") == "{} 3\n"


def test_quiet_leaves_remarks_out_and_json_stays():
    assert run("-q") == ""
    assert run("-q", "--json") == '{"settings": {}, "steps": 0}\n'
