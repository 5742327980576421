"""The commands: options, exit codes, what they print."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import expected
import numpy as np
import pytest
import stored
import synthetic
from click.testing import CliRunner, Result

from converters.cli import Size, convert_paxml, inspect_paxml

Recording = Callable[[str], Path]
BETAS = ("--set", "beta1=0.9", "--set", "beta2=0.99")
LLAMA, REPEATED, RECOMMENDER = "Llama_v11orbaxnames", "LlamaRepeat_gda", "b_everywhere"


def invoke(command: click.Command, *arguments: str | Path) -> Result:
    """Run a command; anything but an exit is a fault of it."""
    result = CliRunner().invoke(command, list(map(str, arguments)))
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result


def converted(*arguments: str | Path) -> Result:
    result = invoke(convert_paxml, *arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: str | Path) -> str:
    result = invoke(convert_paxml, *arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    return result.stderr


def config(out: Path) -> dict[str, Any]:
    return json.loads((out / "config.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing argument 'CKPT'"),
        (("c",), "Missing argument 'OUT'"),
        (("c", "o", "--no-such-flag"), "No such option"),
        (("c", "o", "--step", "-1"), "--step"),
        (("c", "o", "--step", "last"), "--step"),
        (("c", "o", "--family", "gpt5"), "is not one of 'transformer_lm', 'efficientids'"),
        (("c", "o", "--to", "pickle"), "is not one of 'orbax', 'safetensors'"),
        (("c", "o", "--verify", "maybe"), "is not one of 'full', 'sample', 'none'"),
        (("c", "o", "--memory", "much"), "'much' is not a size such as 512MiB or 2GB"),
        (("c", "o", "--memory", "5"), "at least 1MiB is needed"),
        (("c", "o", "--workers", "0"), "--workers"),
        (("c", "o", "--set", "activation"), "'activation' is not KEY=VALUE"),
        (("c", "o", "--no-optimizer", "--raw-optimizer"), "exclude each other"),
        (("c", "o", "--json"), "--json goes with --dry-run"),
        (("c", "o", "--process", "1"), "--process goes with --distributed"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], said: str):
    result = invoke(convert_paxml, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_missing_checkpoint_and_existing_output_exit_with_1(recording: Recording, tmp_path: Path):
    assert "nowhere: no checkpoint found" in refused(tmp_path / "nowhere", tmp_path / "out")
    assert "exists; give --overwrite" in refused(recording(RECOMMENDER) / "checkpoint", tmp_path)


@pytest.mark.parametrize("name", ["convert_paxml", "inspect_paxml", "convert_clustering"])
def test_scripts_start_and_explain_themselves(name: str):
    end = synthetic.run("--help", name=name)
    assert (end.returncode, end.stderr) == (0, "")
    assert end.stdout.startswith("Usage: ")


def test_a_conversion_needs_neither_jax_nor_orbax(recording: Recording, tmp_path: Path):
    import subprocess

    script = (
        "import sys; from converters.cli import convert_paxml as main\n"
        "try: main()\n"
        "finally: print(sorted({'jax', 'orbax', 'flax', 'optax'} & set(sys.modules)))\n"
    )
    arguments = [str(recording(RECOMMENDER) / "checkpoint"), str(tmp_path / "out"), "--quiet"]
    command = [synthetic.command()[0], "-W", "error", "-c", script, *arguments]
    end = subprocess.run(
        command, env=synthetic.environment(), capture_output=True, text=True, check=True
    )
    assert end.stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 << 20), ("1GiB", 1 << 30), ("2GB", 2 * 10**9), ("1.5g", 15 * 10**8),
     ("2000000", 2 * 10**6), ("3 tib", 3 << 40), ("1048576b", 1 << 20)],
)  # fmt: skip
def test_sizes(text: str, size: int):
    assert Size().convert(text, None, None) == size


class TestDryRun:
    """The plan, before a byte is read."""

    def test_reads_no_array(self, editable: Callable[[str], Path], tmp_path: Path):
        checkpoint = editable(REPEATED)
        whole = invoke(convert_paxml, checkpoint, tmp_path / "out", "--dry-run", *BETAS)
        for chunk in checkpoint.glob("*/state/*/0*"):
            if chunk.parent.name != "step":  # the one value that is wanted
                chunk.write_bytes(b"")
        result = converted(checkpoint, tmp_path / "out", "--dry-run", *BETAS)
        assert result.stdout == whole.stdout
        assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint"]

    def test_prints_targets_sources_operations_and_totals(
        self, recording: Recording, tmp_path: Path
    ):
        case = recording(REPEATED)
        text = converted(case / "checkpoint", tmp_path / "out", "--dry-run").stdout
        rows = [re.split(r"  +", line) for line in text.splitlines()]
        assert rows[0] == ["target", "source", "operation", "shape", "dtype"]
        source = "mdl_vars/params/lm/embedding_lookup/emb_var"
        assert [
            "params/embedder/embedding", source, "rename", "[96, 32]", "float32"
        ] in rows  # fmt: skip
        (moment,) = [row for row in rows if row[0] == "state/optimizer/adam/mu/final_norm/scale"]
        assert moment[1] == "opt_states/0/no_prefix/2/m/params/lm/final_ln/scale (+1)"
        assert moment[2] == "times 1 - beta1^count"
        assert text.splitlines()[-1] == (
            f"{case}/checkpoint/checkpoint_00000004: zarr 1.1, paxml 1.4 or newer, step 4, family "
            "transformer_lm; 39 leaves, 445.07 kB (148.35 kB of parameters)"
        )

    def test_json(self, recording: Recording, tmp_path: Path):
        case = recording(REPEATED)
        out = tmp_path / "out"
        result = converted(case / "checkpoint", out, "--dry-run", "--json")
        plan = json.loads(result.stdout)
        converted(case / "checkpoint", out)
        manifest = stored.read_manifest(out)
        rows = ("target", "sources", "shape", "dtype")
        assert [[leaf[key] for key in rows] for leaf in plan["leaves"]] == [
            [leaf[key] for key in rows] for leaf in manifest["leaves"]
        ]
        assert plan["config"] == config(out)
        assert (plan["step"], plan["family"]) == (4, "transformer_lm")
        assert plan["bytes"] == 445068

    def test_writes_nothing_and_minds_no_output(self, recording: Recording, tmp_path: Path):
        converted(recording(REPEATED) / "checkpoint", tmp_path, "--dry-run")
        assert list(tmp_path.iterdir()) == []


def test_quiet_prints_nothing(recording: Recording, tmp_path: Path):
    end = synthetic.run(recording(RECOMMENDER) / "checkpoint", tmp_path / "out", "--quiet")
    assert (end.returncode, end.stdout, end.stderr) == (0, "", "")


def test_report(recording: Recording, tmp_path: Path):
    case, out = recording(REPEATED), tmp_path / "out"
    lines = converted(case / "checkpoint", out).stdout.splitlines()
    assert lines[-2].startswith(f"{case}/checkpoint/checkpoint_00000004: zarr 1.1")
    assert re.fullmatch(
        rf"{out}: written in \d+\.\d s; 39 of 39 leaves read back and compared", lines[-1]
    )


def test_report_names_leaves_with_nan(tmp_path: Path):
    params = synthetic.random_params(count=2, rows=4, columns=4)
    params["layer1/w"][0, :3] = [np.nan, np.inf, -np.inf]
    job = synthetic.write_job(tmp_path / "job", params)
    result = converted(job, tmp_path / "out", "--no-optimizer")
    assert "warning: params/layer1/w: 3 values are NaN or infinite" in result.stdout
    assert "layer0/w: " not in result.stdout
    counts = {
        leaf["target"]: leaf["nonfinite"]
        for leaf in stored.read_manifest(tmp_path / "out")["leaves"]
    }
    assert counts == {"params/layer0/w": 0, "params/layer1/w": 3, "state/step": 0}


class TestInspect:
    """`inspect-paxml`."""

    @pytest.mark.parametrize(
        ("name", "layout", "version", "era", "optimizer", "family"),
        [
            (REPEATED, "zarr", "1.1", "paxml 1.4 or newer", ["adam"], "transformer_lm"),
            ("LlamaRepeat_paxml110_ocdbt", "ocdbt", "1.2", "paxml 1.1", ["adam"], "transformer_lm"),
            ("LlamaAdafactor_flax", "msgpack", "1.1", "paxml 1.1 - 1.4", ["sharded_adafactor"],
             "transformer_lm"),
            ("GptRepeat_v00gda_gzip", "zarr", "0.0", "paxml 0.1 - 0.2", ["adam"], "transformer_lm"),
            ("LlamaRepeatEma_v00flax_file", "msgpack", "0.0", "paxml 0.1 - 0.2", ["adam", "ema"],
             "transformer_lm"),
            (LLAMA, "zarr", "1.1", "paxml 0.3", ["adam"], "transformer_lm"),
            ("LlamaRepeat_paxml100", "zarr", "1.0", "paxml 0.4 - 1.0", ["adam"], "transformer_lm"),
            ("LlamaSgdm_ocdbt", "ocdbt", "1.2", "paxml 1.4 or newer", ["momentum"],
             "transformer_lm"),
            ("LlamaWeightsOnly_flax", "msgpack", "1.1", "paxml 1.1 - 1.4", [], "transformer_lm"),
            ("BatchNormNonTrainable_ocdbt", "ocdbt", "1.2", "paxml 1.4 or newer", [], "generic"),
            (RECOMMENDER, "ocdbt", "1.2", "paxml 1.4 or newer", ["sharded_adafactor"],
             "efficientids"),
        ],
    )  # fmt: skip
    def test_says_what_is_there(
        self,
        name: str,
        layout: str,
        version: str,
        era: str,
        optimizer: list[str],
        family: str,
        recording: Recording,
    ):
        case = recording(name)
        result = invoke(inspect_paxml, case / "checkpoint", "--json")
        about = json.loads(result.stdout)
        found = [about[key] for key in ("layout", "version", "era", "optimizer", "family")]
        assert found == [layout, version, era, optimizer, family]
        described = stored.read_manifest(case)["leaves"]
        assert {leaf["path"]: leaf["shape"] for leaf in about["leaves"]} == {
            path: leaf["shape"] for path, leaf in described.items()
        }
        text = invoke(inspect_paxml, case / "checkpoint").stdout
        lines = dict(re.findall(r"^(layout|step|leaves|optimizer|family) +(.*)$", text, re.M))
        assert lines["layout"] == f"{layout}, version {version} ({era})"
        assert lines["step"] == str(about["step"])
        assert lines["leaves"].startswith(f"{len(described)}, ")
        assert lines["optimizer"] == (", ".join(optimizer) or "none")
        assert lines["family"] == family
        for path in described:
            assert re.search(rf"^{re.escape(path)} +\[", text, re.M)

    def test_reads_no_array(self, editable: Callable[[str], Path]):
        checkpoint = editable(REPEATED)
        for chunk in checkpoint.glob("*/state/*/0*"):
            if chunk.parent.name != "step":
                chunk.write_bytes(b"")
        assert invoke(inspect_paxml, checkpoint).exit_code == 0

    def test_bad_input_exits_with_1(self, tmp_path: Path):
        result = invoke(inspect_paxml, tmp_path / "nowhere")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: ")


@pytest.fixture(scope="module")
def small_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job with steps 0, 20 and 100, the values of each its own."""
    job = tmp_path_factory.mktemp("steps") / "job"
    for step in (0, 20, 100):
        leaves = {
            "step": np.array(step, np.uint32),
            "mdl_vars/params/w": np.full((2, 3), step, np.float32),
        }
        synthetic.write_step(job / "checkpoints" / f"checkpoint_{step:08d}", leaves)
    return job


@pytest.mark.parametrize(
    ("inside", "options", "step"),
    [
        ("", (), 100),
        ("checkpoints", (), 100),
        ("", ("--step", "20"), 20),
        ("checkpoints", ("--step", "0"), 0),
        ("checkpoints/checkpoint_00000020", (), 20),
        ("checkpoints/checkpoint_00000020/state", (), 20),
    ],
)
def test_what_stands_for_a_checkpoint(
    inside: str, options: tuple[str, ...], step: int, small_job: Path, tmp_path: Path
):
    result = converted(small_job / inside, tmp_path / "out", *options)
    assert f"checkpoint_{step:08d}: " in result.stdout  # says which it took
    output = stored.read_output(tmp_path / "out")
    assert output["params/w"].tolist() == [[step] * 3] * 2
    assert output["state/step"] == step
    assert stored.read_manifest(tmp_path / "out")["source"]["step"] == step


def test_a_step_that_is_not_there(small_job: Path, tmp_path: Path):
    said = refused(small_job, tmp_path / "out", "--step", "7")
    assert "no step 7; there are 0, 20, 100" in said


@pytest.mark.parametrize("inside", ["checkpoint", "checkpoint/checkpoint_4"])
def test_a_flax_file(inside: str, recording: Recording, tmp_path: Path):
    case = recording("LlamaRepeatEma_v00flax_file")
    converted(case / inside, tmp_path / "out", *BETAS)
    assert stored.read_manifest(tmp_path / "out")["source"]["step"] == 4


class TestContent:
    """Options that decide what is in the output."""

    def test_no_optimizer(self, recording: Recording, tmp_path: Path):
        case = recording(LLAMA)  # its betas are known nowhere, which now does not matter
        converted(case / "checkpoint", tmp_path / "out", "--no-optimizer")
        output = stored.read_output(tmp_path / "out")
        assert [path for path in output if path.startswith("state/")] == ["state/step"]
        ignored = stored.read_manifest(tmp_path / "out")["ignored"]
        described = stored.read_manifest(case)["leaves"]
        states = [path for path in described if path.startswith("opt_states")]
        assert {entry["source"] for entry in ignored} == set(states)

    def test_raw_optimizer(self, recording: Recording, tmp_path: Path):
        case = recording(LLAMA)
        converted(case / "checkpoint", tmp_path / "out", "--raw-optimizer")
        described = stored.read_manifest(case)["leaves"]
        source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
        raw = {
            f"state/opt_states_raw/{path.removeprefix('opt_states/')}": values
            for path, values in source.items()
            if path.startswith("opt_states/")
        }
        wanted = expected.converted(source)
        wanted = {p: v for p, v in wanted.items() if not p.startswith("state/optimizer")} | raw
        assert expected.difference(stored.read_output(tmp_path / "out"), wanted) == []

    @pytest.mark.parametrize("scan", [True, False])
    def test_scan_layers(self, scan: bool, recording: Recording, tmp_path: Path):
        case = recording(REPEATED if not scan else LLAMA)
        flag = "--scan-layers" if scan else "--no-scan-layers"
        converted(case / "checkpoint", tmp_path / "out", flag, *BETAS)
        described = stored.read_manifest(case)["leaves"]
        source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
        wanted = expected.converted(source, (0.9, 0.99), scan)
        assert expected.difference(stored.read_output(tmp_path / "out"), wanted) == []
        assert config(tmp_path / "out")["model"]["scan_layers"] is scan

    def test_scan_layers_of_layers_that_differ(self, recording: Recording, tmp_path: Path):
        case = recording("MoeGpt_gda")
        said = refused(case / "checkpoint", tmp_path / "out", "--scan-layers")
        assert "layers/moe/router/kernel" in said

    def test_dtype_casts_parameters_alone(self, recording: Recording, tmp_path: Path):
        import ml_dtypes

        case = recording(LLAMA)
        converted(case / "checkpoint", tmp_path / "out", "--dtype", "bfloat16", *BETAS)
        described = stored.read_manifest(case)["leaves"]
        source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
        wanted = {
            path: values.astype(ml_dtypes.bfloat16) if path.startswith("params/") else values
            for path, values in expected.converted(source, (0.9, 0.99)).items()
        }
        assert expected.difference(stored.read_output(tmp_path / "out"), wanted) == []
        leaves = stored.read_manifest(tmp_path / "out")["leaves"]
        (leaf,) = [leaf for leaf in leaves if leaf["target"] == "params/final_norm/scale"]
        assert (leaf["operation"], leaf["dtype"]) == ("cast bfloat16", "bfloat16")

    @pytest.mark.parametrize("name", ["float12", "int8", "float8_e4m3fn"])
    def test_dtype_that_will_not_do(self, name: str, recording: Recording, tmp_path: Path):
        case = recording(RECOMMENDER)
        said = refused(case / "checkpoint", tmp_path / "out", "--dtype", name)
        assert f"--dtype {name}: parameters can be cast to float32, bfloat16" in said

    def test_dequantize(self, recording: Recording, tmp_path: Path):
        case = recording("QuantInt8Linear_gda")
        converted(case / "checkpoint", tmp_path / "out", "--dequantize")
        described = stored.read_manifest(case)["leaves"]
        source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
        weight = source["mdl_vars/params/w"].astype(np.float64)
        scale = source["mdl_vars/params/w_quantized_scale"].astype(np.float64)
        output = stored.read_output(tmp_path / "out")
        assert set(output) == {"params/w", "state/step"}
        assert output["params/w"].dtype == np.float32
        np.testing.assert_array_equal(output["params/w"], (weight * scale).astype(np.float32))

    def test_family_generic_keeps_the_names(self, recording: Recording, tmp_path: Path):
        case = recording(REPEATED)
        converted(case / "checkpoint", tmp_path / "out", "--family", "generic", "--no-optimizer")
        described = stored.read_manifest(case)["leaves"]
        wanted = {
            path.replace("mdl_vars/", "", 1): leaf["sha256"]
            for path, leaf in described.items()
            if path.startswith("mdl_vars/")
        } | {"state/step": described["step"]["sha256"]}
        assert stored.digests(tmp_path / "out") == wanted
        assert config(tmp_path / "out") | {"optimizer": None} == {
            "schema_version": 1, "family": "generic", "model": None, "optimizer": None
        }  # fmt: skip

    def test_family_that_does_not_fit(self, recording: Recording, tmp_path: Path):
        case = recording("BatchNormNonTrainable_ocdbt")
        said = refused(case / "checkpoint", tmp_path / "out", "--family", "transformer_lm")
        assert "no rule takes this leaf" in said

    def test_rules(self, recording: Recording, tmp_path: Path):
        case = recording("QuantInt8Linear_gda")
        rules = tmp_path / "rules.toml"
        rules.write_text(
            '[[rule]]\ntarget = "dense/kernel"\nsource = "w"\nop = "transpose 1 0"\n'
            '[[ignore]]\nsource = "w_quantized_scale"\nreason = "the test does without"\n'
        )
        converted(case / "checkpoint", tmp_path / "out", "--rules", rules)
        described = stored.read_manifest(case)["leaves"]
        source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
        output = stored.read_output(tmp_path / "out")
        assert output["params/dense/kernel"].tolist() == source["mdl_vars/params/w"].T.tolist()
        manifest = stored.read_manifest(tmp_path / "out")
        assert manifest["ignored"] == [
            {"source": "mdl_vars/params/w_quantized_scale", "reason": "the test does without"}
        ]
        assert manifest["rules"] == ["dense/kernel <- w (transpose 1 0)"]

    def test_rules_that_leave_something_out_list_it(self, recording: Recording, tmp_path: Path):
        rules = tmp_path / "rules.yaml"
        rules.write_text("rule:\n- {target: kernel, source: w}\n")
        case = recording("QuantInt8Linear_gda")
        said = refused(case / "checkpoint", tmp_path / "out", "--rules", rules)
        assert "w_quantized_scale: no rule takes this leaf" in said

    @pytest.mark.parametrize("text", ["{", "rule: 3", "[[rule]]\ntarget = 'a'"])
    def test_rules_that_are_none(self, text: str, recording: Recording, tmp_path: Path):
        rules = tmp_path / "rules.toml"
        rules.write_text(text)
        case = recording("QuantInt8Linear_gda")
        said = refused(case / "checkpoint", tmp_path / "out", "--rules", rules)
        assert f"{rules}: " in said

    def test_set_and_config(self, recording: Recording, tmp_path: Path):
        case = recording(LLAMA)
        file = tmp_path / "values.toml"
        file.write_text('activation = "relu"\nnorm_epsilon = 0.5\n[optimizer]\nbeta1 = 0.8\n')
        values = ["--config", file, "--set", "norm_epsilon=.25", "--set", "optimizer.beta2=0.99"]
        converted(case / "checkpoint", tmp_path / "out", *values)
        written = config(tmp_path / "out")
        assert written["model"]["activation"] == "relu"
        assert written["model"]["norm_epsilon"] == 0.25  # --set wins
        assert (written["optimizer"]["beta1"], written["optimizer"]["beta2"]) == (0.8, 0.99)
        described = stored.read_manifest(case)["leaves"]
        source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
        wanted = expected.converted(source, (0.8, 0.99))
        assert expected.difference(stored.read_output(tmp_path / "out"), wanted) == []

    def test_set_of_nothing_known(self, recording: Recording, tmp_path: Path):
        case = recording(RECOMMENDER)
        said = refused(case / "checkpoint", tmp_path / "out", "--set", "activatoin=relu")
        assert "activatoin" in said

    def test_job_files(self, recording: Recording, tmp_path: Path):
        case = recording(REPEATED)
        checkpoint = Path(shutil.copytree(case / "checkpoint", tmp_path / "alone" / "checkpoint"))
        assert "beta1 is not known" in refused(checkpoint, tmp_path / "out")
        converted(checkpoint, tmp_path / "out", "--job-files", case / "job_files")
        converted(case / "checkpoint", tmp_path / "beside")
        assert stored.digests(tmp_path / "out") == stored.digests(tmp_path / "beside")
        assert config(tmp_path / "out") == config(tmp_path / "beside")

    def test_manifest_says_where_each_value_comes_from(self, recording: Recording, tmp_path: Path):
        converted(
            recording(REPEATED) / "checkpoint", tmp_path / "out", "--set", "norm_epsilon=1e-3"
        )
        written = config(tmp_path / "out")["model"]
        provenance = stored.read_manifest(tmp_path / "out")["config"]["model"]
        assert {name.partition(".")[0] for name in provenance} >= set(written)
        assert len({str(cause) for cause in provenance.values()}) > 2


@pytest.mark.parametrize("to", ["orbax", "safetensors"])
@pytest.mark.parametrize("verify", ["full", "sample", "none"])
def test_formats_and_verification(to: str, verify: str, recording: Recording, tmp_path: Path):
    case = recording(REPEATED)
    options = ("--to", to, "--verify", verify, "--memory", "1MiB", "--workers", "3")
    converted(case / "checkpoint", tmp_path / "out", *options)
    described = stored.read_manifest(case)["leaves"]
    source = stored.read_paxml(stored.step_of(case / "checkpoint"), described)
    wanted = expected.converted(source, (0.9, 0.99))
    if to == "orbax":
        output = stored.read_output(tmp_path / "out")
    else:
        from safetensors.numpy import load_file

        output = {
            f"{item}/{name}": values
            for item in ("params", "state")
            for name, values in load_file(tmp_path / "out" / f"{item}.safetensors").items()
        }
    assert expected.difference(output, wanted) == []
    leaves = stored.read_manifest(tmp_path / "out")["leaves"]
    checked = [leaf for leaf in leaves if leaf["verified"] == "read back"]
    assert len(checked) == {"full": len(leaves), "none": 0}.get(verify, len(checked))
    assert verify != "sample" or 0 < len(checked) < len(leaves)
    for leaf in leaves:
        if leaf["sha256"] is not None:
            assert leaf["sha256"] == stored.leaf_digest(output[leaf["target"]])
        elif verify != "full" and "moved undecoded" in leaf["operation"]:
            assert (leaf["verified"], leaf["nonfinite"]) == ("not checked", "not checked")
            assert len(leaf["stored_sha256"]) == 64
        assert verify != "full" or leaf["sha256"] is not None


class TestAlso:
    """`--also`: what PAXml's init-from-checkpoint rules put together."""

    ITEMS = "params/lm/softmax/logits_ffn_item/.*"
    CLUSTERS = "params/lm/softmax/logits_ffn_cluster/linear/.*"

    @pytest.mark.parametrize("kind", ["full", "min"])
    def test_item_and_cluster_tables(self, kind: str, recording: Recording, tmp_path: Path):
        case = recording("n_init_rules")
        also = ["--also", f"{case / f'item_{kind}'}:{self.ITEMS}"]
        also += ["--also", f"{case / f'cluster_{kind}'}:{self.CLUSTERS}"]
        result = converted(case / "lm", tmp_path / "out", *also)
        assert "training starts anew" in result.stdout
        output = stored.read_output(tmp_path / "out")
        taken = {
            "item_embedding/kernel": (f"item_{kind}", "logits_ffn_item"),
            "cluster_embedding/kernel": (f"cluster_{kind}", "logits_ffn_cluster"),
        }
        own = {"mdl_vars/params/lm/final_ln/scale": {"shape": [32]}}
        lm = stored.read_paxml(stored.step_of(case / "lm"), own)
        scale = output["params/pretrained_lm/final_norm/scale"]
        assert scale.tobytes() == next(iter(lm.values())).tobytes()
        for target, (folder, name) in taken.items():
            path = f"mdl_vars/params/lm/softmax/{name}/linear/w"
            described = {path: {"shape": list(output[f"params/{target}"].shape)}}
            source = stored.read_paxml(stored.step_of(case / folder), described)
            assert output[f"params/{target}"].tobytes() == source[path].tobytes()
        assert not [path for path in output if path.startswith("state/optimizer")]
        assert config(tmp_path / "out")["family"] == "efficientids"
        assert output["state/step"] == 104000

    def test_rules_from_a_file(self, recording: Recording, tmp_path: Path):
        case = recording("n_init_rules")
        rules = tmp_path / "rules.toml"
        rules.write_text(f"load = [['({self.ITEMS})$', '{{}}']]\n")
        converted(case / "lm", tmp_path / "a", "--also", f"{case / 'item_min'}:{rules}")
        converted(case / "lm", tmp_path / "b", "--also", f"{case / 'item_min'}:{self.ITEMS}")
        assert stored.digests(tmp_path / "a") == stored.digests(tmp_path / "b")

    def test_a_lm_without_tables_becomes_a_recommender(self, recording: Recording, tmp_path: Path):
        """A plain LM of the same shapes, made by leaving the item side out."""
        case = recording("n_init_rules")
        lm = Path(shutil.copytree(case / "lm", tmp_path / "lm"))
        for array in [
            *lm.glob("*/state/*logits_ffn_item*"),
            *lm.glob("*/state/*logits_ffn_cluster*"),
        ]:
            shutil.rmtree(array)
        shutil.rmtree(next(lm.glob("*/metadata")))
        for array in lm.glob("*/state/opt_states*"):
            shutil.rmtree(array)
        also = ["--also", f"{case / 'item_min'}:{self.ITEMS}"]
        converted(lm, tmp_path / "out", *also)
        assert "params/item_embedding/kernel" in stored.digests(tmp_path / "out")

    @pytest.mark.parametrize(
        ("rules", "said"),
        [
            ("params/lm/nothing/.*", "no parameter matches the rules"),
            ("(", "not a list of patterns"),
            ("missing.toml", "missing.toml: cannot be read"),
        ],
    )
    def test_rules_that_do_not_fit(
        self, rules: str, said: str, recording: Recording, tmp_path: Path
    ):
        case = recording("n_init_rules")
        also = f"{case / 'item_min'}:{rules}"
        assert said in refused(case / "lm", tmp_path / "out", "--also", also)
        assert list(tmp_path.iterdir()) == []

    def test_no_rules_at_all(self, recording: Recording, tmp_path: Path):
        case = recording("n_init_rules")
        said = refused(case / "lm", tmp_path / "out", "--also", str(case / "item_min"))
        assert "write CKPT:RULES" in said

    def test_tables_of_another_size(self, recording: Recording, tmp_path: Path):
        case, other = recording("n_init_rules"), recording(RECOMMENDER)
        also = f"{other / 'checkpoint'}:{self.ITEMS}"
        said = refused(case / "lm", tmp_path / "out", "--also", also)
        assert "gives [16, 200], the first checkpoint has [16, 61]" in said
