"""Sequences are read from every form, cut without losing a label, and refused by name."""

import json

import numpy as np
import pytest

from efficientids_flax.search import Samples, find_settings, read_samples
from tests.efficientids_flax.search.small import CONFIG


def arrays(count=9, length=4):
    rows = np.arange(count * (length + 1)).reshape(count, length + 1) % 7
    weights = np.ones((count, length))
    return {"ids": rows[:, :-1], "labels": rows[:, 1:], "weights": weights}


def test_arrays_as_they_are_and_as_sequences(tmp_path):
    whole = arrays()
    np.savez(tmp_path / "batch.npz", **whole)
    rows = np.concatenate([whole["ids"], whole["labels"][:, -1:]], axis=1)
    np.savez(tmp_path / "rows.npz", sequences=rows)
    for name in ("batch", "rows"):
        found = read_samples(tmp_path / f"{name}.npz")
        for key, value in whole.items():
            np.testing.assert_array_equal(found.batch[key], value)
    assert read_samples(tmp_path / "batch.npz", most=8).count == 8


def test_lists_are_cut_so_that_every_token_but_the_first_is_a_label_once(tmp_path):
    lists = [list(range(1, 12)), [1, 2], [5], list(range(3, 30)), *[[7, 8, 9]] * 8]
    file = tmp_path / "tokens.jsonl"
    file.write_text("\n".join(map(json.dumps, lists)) + "\n\n")
    found = read_samples(file, length=4)
    labels = found.batch["labels"][found.batch["weights"] > 0]
    assert labels.tolist() == [token for one in lists for token in one[1:]]
    assert found.batch["ids"].shape[1] == 4
    assert found.weight.sum() == len(labels)


def test_text_needs_a_tokenizer_and_is_a_document_a_line(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("\n".join(["a b c d"] * 9))
    with pytest.raises(ValueError, match="needs a tokenizer"):
        read_samples(file)
    found = read_samples(file, tokenizer=lambda text: {"input_ids": [ord(c) for c in text[::2]]})
    assert found.batch["labels"][0].tolist() == [98, 99, 100]


def test_what_labels_a_model_can_see():
    assert Samples(arrays()).answers_are_seen
    shuffled = {**arrays(), "labels": arrays()["labels"][::-1]}
    assert not Samples(shuffled).answers_are_seen


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": None}, "labels missing"),
        ({"labels": arrays()["ids"]}, "labels: 100% are the ids of the same places; expected what"),
        ({"lables": np.zeros((9, 4))}, "lables: no field of a batch"),
        ({"weights": np.ones((9, 3))}, r"weights: found \[9, 3\], expected"),
        ({"weights": np.zeros((9, 4))}, "0 sequences with labels"),
    ],
)
def test_what_cannot_be_judged_by_is_said(change, words):
    batch = {key: value for key, value in {**arrays(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        Samples(batch)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", "[1, 2]\n{}", r"a.jsonl:2: expected a list of tokens"),
        ("a.jsonl", "[1, true]", "expected a list of tokens"),
        ("a.jsonl", "[1, 2", "a.jsonl:1: is no JSON"),
        ("a.jsonl", "[1]\n[2]\n", "no sequence of two tokens"),
        ("a.npz", "text", "a.npz: is no .npz of arrays"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=words):
        read_samples(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        read_samples(tmp_path / "nowhere.npz")


def test_the_same_sequences_again_tell_nothing_more():
    few = {name: np.tile(value[:4], (10, 1)) for name, value in arrays().items()}
    with pytest.raises(ValueError, match="4 different sequences among 40; differences between"):
        find_settings(CONFIG, {}, {}, Samples(few))
