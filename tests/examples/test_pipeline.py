"""The pipeline example: the script runs and goes on, the notebook says the same and runs."""

import ast
import json
import runpy
import tempfile

import pytest
from click.testing import CliRunner

from tests.paths import ROOT

SCRIPT, NOTEBOOK = ROOT / "examples" / "pipeline.py", ROOT / "examples" / "pipeline.ipynb"

pyplot = pytest.importorskip("matplotlib.pyplot")


def run(*options):
    main = runpy.run_path(str(SCRIPT))["main"]
    result = CliRunner().invoke(main, [*map(str, options)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_the_script_learns_draws_and_goes_on(tmp_path):
    given = ("--rows", 320, "--output-dir", tmp_path)
    lines = run("--epochs", 3, *given)
    assert [line for line in lines if line.startswith("Epoch")] == [
        "Epoch 1/3", "Epoch 2/3", "Epoch 3/3",
    ]  # fmt: skip
    accuracy = float(lines[-2].split()[2].strip(","))
    assert lines[-2].startswith("Test accuracy: ")
    assert accuracy > 0.2  # of ten classes, and it is 0.1 before
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    more = run("--epochs", 4, *given)
    assert more[:9] == [line.replace("/3", "/4") for line in lines[:9]]
    assert more[9] == "Epoch 4/4"


@pytest.mark.parametrize(
    "options", [("--optimizer", "sgd"), ("--scheduler", "exponential"), ("--scheduler", "constant")]
)
def test_optimizers_and_schedules_are_exchanged_by_name(tmp_path, options):
    lines = run("--epochs", 1, "--rows", 64, "--output-dir", tmp_path, *options)
    assert lines[-2].startswith("Test accuracy: ")


def cells():
    """(source, text of the outputs) of each cell of code."""
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            outputs = [output.get("text", []) for output in cell["outputs"]]
            found.append(("".join(cell["source"]), "".join("".join(text) for text in outputs)))
    return found


def definitions(source):
    """Functions and classes by name."""
    return {
        node.name: ast.dump(node)
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name != "main"
    }


def test_the_notebook_defines_what_the_script_does():
    assert definitions("\n".join(source for source, _ in cells())) == definitions(
        SCRIPT.read_text()
    )


def test_the_notebook_is_small_and_was_run():
    assert NOTEBOOK.stat().st_size < 100_000
    numbers = [
        cell["execution_count"]
        for cell in json.loads(NOTEBOOK.read_text())["cells"]
        if cell["cell_type"] == "code"
    ]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    """Its cells of code in one process, one after another, without a kernel."""
    pyplot.switch_backend("agg")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = {"__name__": "__main__"}
    for source, output in cells():
        exec(compile(source, str(NOTEBOOK), "exec"), names)
        # The numbers are those of another machine.
        assert len(capsys.readouterr().out.splitlines()) == len(output.splitlines())
    assert names["result"].test["test_accuracy"] > 0.5
