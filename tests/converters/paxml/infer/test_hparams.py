import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import CheckpointError
from converters.paxml.infer.hparams import Symbol, parse_sections, parse_value, read_hparams
from tests.converters.paxml.recorded_jobs import JOBS, LANGUAGE_MODELS


def write_job(folder, name, *files):
    for file in files or JOBS[name]["files"]:
        (folder / file).write_text(JOBS[name]["files"][file])
    return folder


def test_reads_a_recorded_job(tmp_path):
    found = read_hparams(write_job(tmp_path, "MoeGpt_gda"))
    assert found["model.lm_tpl.model_dims"] == 32
    assert found["model.lm_tpl.stacked_transformer_tpl.moe_layers"] == [1]
    assert found["model.lm_tpl.name"] is None
    assert found["model.dtype"] == Symbol("jax.numpy", "float32")
    assert found["train.learner.optimizer.epsilon"] == 1e-6
    assert found["train.learner.repeat_prefix_sep"] == "#"
    assert found["model.lm_tpl.softmax_tpl.activation_split_dims_mapping.out"] == [
        ("replica", "data"), None, "mdl",
    ]  # fmt: skip
    assert found["experiment.ATTEN_LOGIT_CAP"] == 50.0
    assert found["experiment.NORM_POLICY"] == "pre"
    assert found["experiment.PARAM_DTYPE"] is None
    assert found["cls"] == Symbol("paxml.tasks_lib", "SingleTask")  # of the task, not of an input


def test_dumps_of_paxml_1_0(tmp_path):
    found = read_hparams(write_job(tmp_path, "LlamaRepeat_paxml100"))
    assert found["model.lm_tpl.cls"] == Symbol("praxis.layers.transformer_models", "TransformerLm")


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_every_line_of_every_recorded_dump_is_read(name):
    text = JOBS[name]["files"]["model_params.txt"]
    sections = parse_sections(text, name)
    assert len(sections) == 2
    assert sum(map(len, sections)) == sum(1 for line in text.splitlines() if line)


def test_one_file(tmp_path):
    write_job(tmp_path, "Llama_gda")
    found = read_hparams(tmp_path / "model_params.txt")
    assert found["model.lm_tpl.vocab_size"] == 96
    assert not any(path.startswith("experiment.") for path in found)


def test_built_layers_stand_in_for_a_missing_dump(tmp_path):
    name = "Pipe2_gda"
    both = read_hparams(write_job(tmp_path, name))
    (tmp_path / "model_params.txt").unlink()
    found = read_hparams(tmp_path)
    layer = "model.lm_tpl.stacked_transformer_tpl.pipeline_stage.transformer_layer_params_tpl"
    path = f"{layer}.tr_atten_tpl.atten_logit_cap"
    assert found[path] == both[path] == 50.0
    assert found["experiment.NUM_STAGES"] == 2


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected model_params\.txt.*--job-files"):
        read_hparams(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'it\\'s'", "it's"),
        ('"a\\\\.b"', "a\\.b"),
        ("'two\nlines'", "two\nlines"),
        ("1e-30", 1e-30),
        ("-3", -3),
        ("inf", float("inf")),
        ("callable/jax.nn/relu", Symbol("jax.nn", "relu")),
        ("type/m.n/Outer.Inner", Symbol("m.n", "Inner")),
        ("<class 'jax.numpy.bfloat16'>", Symbol("jax.numpy", "bfloat16")),
        ("ArrayImpl", Symbol("", "ArrayImpl")),
        ("[0, 1, nan]", Symbol("", "[0, 1, nan]")),
        ("['NoneType', ('NoneType',)]", [None, (None,)]),
        ("__import__('os').system('true')", Symbol("", "__import__('os').system('true')")),
        ("[__import__('os')]", Symbol("", "[__import__('os')]")),
    ],
)
def test_values(text, value):
    assert parse_value(text) == value


def quoted(text):
    mark = "'" if text.count("'") <= text.count('"') else '"'
    return mark + text.replace("\\", "\\\\").replace(mark, f"\\{mark}") + mark


scalars = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(st.characters(codec="ascii"))
)


@given(st.dictionaries(st.from_regex(r"[a-z_]+(\.[a-z_]+|\[\d\]){0,3}", fullmatch=True), scalars))
def test_what_praxis_writes_is_read_back(values):
    """By the rules of `nested_struct_to_text`: strings quoted, everything else `str`."""
    values["model.cls"] = 1
    lines = [
        f"{path} : {quoted(value) if isinstance(value, str) else value}"
        for path, value in sorted(values.items())
    ]
    assert parse_sections("\n".join(lines), "dump") == [values]


def test_arrays_and_strings_over_several_lines():
    text = "a : [[1, 2],\n [3, 4]]\nb : 'x : [\n\ny'\nc : 3\n\nd : 4\n"
    assert parse_sections(text, "dump") == [
        {"a": [[1, 2], [3, 4]], "b": "x : [\n\ny", "c": 3},
        {"d": 4},
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a : 1\nb = 2\n", "dump, line 2: expected `path : value`, found 'b = 2'"),
        ("a : 1\n\nb : \n", "dump, line 3: expected `path : value`, found 'b : '"),
        ("a : 1\na : 2\n", "dump, line 2: a is given twice"),
        ("a : 1\nb : [1,\n2\n", "dump, line 2: the value does not end before the file does"),
        ("a : 'b\n", "dump, line 1: the value does not end"),
        ("\n\n", "dump: the file is empty"),
    ],
)
def test_malformed_lines(text, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        parse_sections(text, "dump")


def test_not_the_dump_of_a_task(tmp_path):
    (tmp_path / "model_params.txt").write_text("a : 1\n")
    with pytest.raises(CheckpointError, match="no section has `model"):
        read_hparams(tmp_path)
    (tmp_path / "model_params.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="not a text file"):
        read_hparams(tmp_path)
