"""The command `forecast`: its table is that of the library, and its mistakes are told."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from converters import convert
from efficientids_flax.commands.program import main
from efficientids_flax.forecast import forecast
from efficientids_flax.stored import load_model

GIVEN = {
    "quantiles": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    "use_positional_embedding": True, "context_length": 64,
}  # fmt: skip
VALUES = np.sin(np.arange(40) / 3).round(4)
DAYS = np.arange("2024-01-01", "2024-02-10", dtype="datetime64[D]")


@pytest.fixture(scope="module")
def converted(recording, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("forecaster") / "out"
    convert(recording("TimesFM_shared") / "checkpoint", out, overrides=GIVEN)
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("data") / "data.csv"
    rows = [f"shop,{day},{value}" for day, value in zip(DAYS, VALUES, strict=True)]
    file.write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["forecast", *map(str, arguments)])


def test_a_table_and_a_plot(converted: Path, data: Path, tmp_path: Path):
    end = run(converted, "--input", data, "--horizon", 3, "--freq", "D", "--quantile", 0.9,
              "--output", tmp_path / "out.csv", "--plot", tmp_path / "out.png")  # fmt: skip
    assert end.exit_code == 0, end.output
    assert end.stdout == f"1 series, 3 points each: {tmp_path / 'out.csv'}\n"
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "unique_id,ds,timesfm,timesfm-q-0.9"
    model, params, _ = load_model(converted)
    wanted = forecast(model, params, [VALUES], 3, quantiles=[0.9])
    cells = [line.split(",") for line in lines[1:]]
    assert [cell[:2] for cell in cells] == [["shop", f"2024-02-{day}"] for day in (10, 11, 12)]
    found = np.asarray([[float(one) for one in cell[2:]] for cell in cells])
    np.testing.assert_allclose(found[:, 0], wanted.mean[0], rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], wanted.quantiles[0, :, 0], rtol=1e-5)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_it_is_printed_or_told_as_json(converted: Path, data: Path):
    end = run(converted, "--input", data, "--horizon", 2, "--freq", "D")
    assert end.stdout.startswith("unique_id,ds,timesfm,timesfm-q-0.1")
    end = run(converted, "--input", data, "--horizon", 2, "--freq", "D", "--json")
    assert json.loads(end.stdout)["ds"] == ["2024-02-10", "2024-02-11"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [(["--horizon", 0], 2, "0 is not in the range x>=1"),
     (["--horizon", 2, "--freq", "fortnight"], 2, "no frequency 'fortnight'"),
     (["--horizon", 2, "--value-column", "sales"], 1, "has no column sales"),
     (["--horizon", 2, "--quantile", 0.95], 1, "the model has no 0.95"),
     ([], 2, "Missing option '--horizon'")],
)  # fmt: skip
def test_mistakes(converted: Path, data: Path, arguments: list, code: int, text: str):
    end = run(converted, "--input", data, *arguments)
    assert end.exit_code == code
    assert text in end.output
    assert "Traceback" not in end.output


def test_a_file_or_a_model_that_is_not_there(converted: Path, data: Path, tmp_path: Path):
    end = run(converted, "--input", tmp_path / "none.csv", "--horizon", 2)
    assert (end.exit_code, "none.csv" in end.output) == (1, True)
    end = run(tmp_path / "none", "--input", data, "--horizon", 2)
    assert (end.exit_code, "no config.json" in end.output) == (1, True)
