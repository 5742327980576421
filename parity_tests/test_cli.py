"""The command check-parity."""

import numpy as np
from click.testing import CliRunner

from parity_tests.cases import OUTPUTS
from parity_tests.cli import check_parity

NAME = "LlamaRepeat_gda"


def test_agreement(converted):
    result = CliRunner().invoke(check_parity, [str(converted(NAME)), str(OUTPUTS / f"{NAME}.npz")])
    assert result.exit_code == 0, result.output
    assert "2 arrays agree with the real PAXml" in result.output


def test_a_difference_is_named_and_fails(converted, tmp_path):
    with np.load(OUTPUTS / f"{NAME}.npz") as file:
        changed = {key: file[key] for key in file.files}
    changed["out/logits"] = changed["out/logits"] + 1e-3
    np.savez(tmp_path / "changed.npz", **changed)
    arguments = [str(converted(NAME)), str(tmp_path / "changed.npz")]
    result = CliRunner().invoke(check_parity, arguments)
    assert result.exit_code == 1
    assert "first differs at out/logits" in result.output


def test_bad_input_is_one_line(tmp_path):
    result = CliRunner().invoke(check_parity, [str(tmp_path), str(tmp_path / "none.npz")])
    assert result.exit_code == 1
    assert "give the OUT directory of convert-paxml" in result.output
