"""The table of experiments against the dumps of the classes themselves, as PAXml wrote them."""

import tarfile
from typing import Any

import pytest

from converters.paxml.experiments.listing import listed, table_text
from converters.paxml.experiments.match import EXPERIMENTS
from converters.paxml.experiments.shipped import SHIPPED
from converters.paxml.infer import infer_optimizer, open_dump, read_backbone
from converters.paxml.infer.hparams import parse_sections
from efficientids_flax.config import BackboneConfig, OptimizerConfig
from efficientids_flax.config.record import dotted_keys
from efficientids_flax.settings import NEEDED, OPEN
from tests.paths import RECORDINGS

with tarfile.open(RECORDINGS / "experiments.tar.xz") as archive:
    DUMPS = {
        member.name.removesuffix(".txt"): archive.extractfile(member).read().decode()  # type: ignore[union-attr]
        for member in archive.getmembers()
    }
NOT_SAID = {"final_norm", "parallel_residual", "norm_bias", "rotary.fraction"}  # of class or tree
OF_THE_DEVICES = ("learning_rate", "schedule")  # MLPerf's classes depend on them


def values_of(name: str) -> dict[str, Any]:
    return parse_sections(DUMPS[name], name)[-1]


def test_every_experiment_that_paxml_ships_has_a_row():
    assert {row.name for row in SHIPPED} == set(DUMPS)
    assert len(EXPERIMENTS) == len({row.name for row in EXPERIMENTS.values()}) > len(DUMPS)


@pytest.mark.parametrize("name", DUMPS)
def test_a_row_says_what_the_dump_of_its_class_says(name: str):
    row, dump = EXPERIMENTS[name], open_dump(values_of(name))
    read_backbone(dump, head=True)
    told = {key: fact.value for key, fact in dump.facts.known.items()}
    ours = {**row.model, **row.size}
    wrong = {key: (ours[key], told[key]) for key in ours if key in told and ours[key] != told[key]}
    assert wrong == {}
    open_keys = {row.key for row in OPEN}
    assert {key for key in told if key.split(".")[0] in open_keys} <= set(ours)


@pytest.mark.parametrize("name", DUMPS)
def test_a_row_says_how_its_class_trains(name: str):
    row = EXPERIMENTS[name]
    told, _ = infer_optimizer(values_of(name))
    assert told is not None
    wanted, ours = told.to_dict(), row.whole_learner
    if "MLPerf" in name:
        wanted = {key: value for key, value in wanted.items() if key not in OF_THE_DEVICES}
    assert ours == wanted


@pytest.mark.parametrize("row", EXPERIMENTS.values(), ids=lambda row: row.name)
def test_rows_hold_settings_that_there_are(row):
    assert {*row.model, *row.if_sized, *row.size} <= set(dotted_keys(BackboneConfig))
    if row.learner:
        assert OptimizerConfig.from_dict(row.learner).name in NEEDED
    assert row.source.split(" ")[0] in ("google/paxml", "google/saxml")


def test_the_table_is_shown_whole():
    lines = table_text().splitlines()
    assert len(lines) == len(EXPERIMENTS) + 1
    (line,) = [line for line in lines if line.startswith("Llama2_70B ")]
    for part in ("80", "8192", "28672", "64/8x128", "51200", "adam", "nvidia.py", "Praxis 1.4.0"):
        assert part in line
    assert [row["name"] for row in listed()] == list(EXPERIMENTS)
