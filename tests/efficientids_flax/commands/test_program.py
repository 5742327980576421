"""The program: its commands, what all of them have, how it starts."""

import json
import subprocess
import sys
from importlib.metadata import entry_points, version

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from efficientids_flax.commands.declare import Command, command
from efficientids_flax.commands.program import COMMANDS, main

OTHER_NAMES = {
    "convert-paxml": "convert",
    "inspect-paxml": "inspect",
    "convert-clustering": "convert-clustering",
    "convert-hf": "convert-hf",
    "parity-check": "parity",
}
HEAVY = {"jax", "numpy", "flax", "orbax", "tensorstore", "transformers", "converters", "rich"}


def found(name: str) -> Command:
    it = main.get_command(click.Context(main), name)
    assert isinstance(it, Command)
    return it


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_what_all_have(name: str):
    result = CliRunner().invoke(main, [name, "-h"])
    assert result.exit_code == 0, result.output
    for option in ("--json", "-v, --verbose", "-q, --quiet", "--version", "-h, --help"):
        assert option in result.output
    told = CliRunner().invoke(main, [name, "--version"]).output
    assert told == f"efficientids-flax {version('efficientids-flax')}\n"
    wrong = CliRunner().invoke(main, [name, "--no-such-flag"])
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "No such option" in wrong.stderr


def test_options_that_say_the_same_are_declared_once():
    """One word, one meaning: no two commands tell of an option in different words."""
    told: dict[str, set[str]] = {}
    for name in COMMANDS:
        for option in found(name).params:
            if isinstance(option, click.Option):
                told.setdefault(option.opts[-1], set()).add(str(option.help))
    several = {name for name, texts in told.items() if len(texts) > 1}
    # A setting is of what the command has; the rest is of another thing under the usual word.
    assert several == {
        "--set", "--config", "--dtype", "--family", "--overwrite", "--step", "--tokenizer",
        "--input-ids", "--input-file", "--batch-size", "--seed", "--top-k", "--dry-run", "--items",
        "--memory", "--split", "--data-dir", "--engine", "--max-length", "--normalize", "--out",
        "--plot", "--checkpoint", "--clusters",
    }  # fmt: skip


def test_the_names_that_people_know_are_the_same_commands():
    scripts = {script.name: script for script in entry_points(group="console_scripts")}
    assert scripts["efficientids"].load() is main
    for other, name in OTHER_NAMES.items():
        assert scripts[other].load() is found(name)


@pytest.mark.parametrize(
    ("module", "name"),
    [("efficientids_flax.train", "train"), ("efficientids_flax.inference", "recommend")],
)
def test_the_modules_are_the_same_commands(module: str, name: str):
    end = subprocess.run(
        [sys.executable, "-m", module, "-h"], capture_output=True, text=True, check=True
    )
    assert end.stdout.startswith(f"Usage: python -m {module} [OPTIONS]")
    assert str(found(name).help).splitlines()[0] in end.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["no-such-command"]])
def test_nothing_large_is_imported_for_help(arguments: list[str]):
    code = (
        "import sys; from efficientids_flax.commands.program import main\n"
        f"try: main({arguments})\n"
        f"finally: sys.stderr.write(repr(sorted({HEAVY} & set(sys.modules))))"
    )
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert end.stderr.endswith("[]"), end.stderr


def test_help_lists_the_commands_in_the_order_of_the_work():
    lines = CliRunner().invoke(main, ["--help"]).output.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in lines if line.strip()] == list(COMMANDS)


@pytest.mark.parametrize(
    ("word", "hint"),
    [("conver", "did you mean convert?"), ("xyz", "there are inspect, convert, convert-hf")],
)
def test_an_unknown_command_is_told_with_the_nearest(word: str, hint: str):
    result = CliRunner().invoke(main, [word])
    assert result.exit_code == 2
    assert f"No such command '{word}'; {hint}" in result.stderr


def test_completion_knows_commands_and_options():
    def completions(*words: str) -> list[str]:
        shell = ShellComplete(main, {}, "efficientids", "_EFFICIENTIDS_COMPLETE")
        return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]

    assert completions("conv") == ["convert", "convert-hf", "convert-clustering"]
    assert completions("convert", "--over") == ["--overwrite"]
    assert completions("convert", "--to", "s") == ["safetensors"]


def test_json_goes_with_every_place_of_the_flags():
    for arguments in (["-q", "inspect", "nowhere"], ["inspect", "nowhere", "-q", "--json"]):
        result = CliRunner().invoke(main, arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: nowhere: no checkpoint found")


def test_verbose_shows_where_an_error_comes_from():
    result = CliRunner().invoke(main, ["inspect", "nowhere", "-v"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: nowhere: no checkpoint found")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError(2, "No such file or directory", "run.yaml"),
         "run.yaml: No such file or directory"),
        (OSError(18, "Invalid cross-device link", "a", None, "b"),
         "a -> b: Invalid cross-device link"),
        (OSError("a sentence of ours"), "a sentence of ours"),
        (MemoryError(), "MemoryError"),
    ],
)  # fmt: skip
def test_what_the_system_says_is_told_as_we_tell(error: Exception, told: str):
    @command("failing")
    def failing(as_json: bool) -> None:
        raise error

    result = CliRunner().invoke(failing, [])
    assert (result.exit_code, result.stderr) == (1, f"Error: {told}\n")


def test_a_fault_of_ours_is_no_mistake_of_the_user(monkeypatch: pytest.MonkeyPatch):
    def faulty(*_arguments: object) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr("converters.commands.inspect.open_checkpoint", faulty)
    result = CliRunner().invoke(main, ["inspect", "nowhere"])
    assert isinstance(result.exception, KeyError)


def test_results_as_json(recording):
    case = recording("LlamaRepeat_gda")
    result = CliRunner().invoke(main, ["inspect", str(case / "checkpoint"), "--json"])
    assert json.loads(result.stdout)["step"] == 4
