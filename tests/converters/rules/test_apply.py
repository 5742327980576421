"""Rule tables: what they do and what they refuse."""

import re
from itertools import product

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import pytest

import converters.rules.apply
from converters.errors import MappingError
from converters.rules.language import Ignore, Rule, check_rules, fill, holes, nearest
from tests.converters.rules.rule_tables import apply, assert_equal, fails, results, tree
from tests.leaves import values_of

# What a table may say.


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule("a/{i}", "b"), "holes ['i'] of the target need one unstack or part each"),
        (Rule("a", "b/{i}"), "holes ['i'] of the source need one stack or join each"),
        (Rule("a/{i}", "b/{j}"), "holes ['j'] of the source"),
        (Rule("a", "b/{i}/{j}", "stack 0"), "holes ['i', 'j'] of the source"),
        (Rule("a/{i}", "b/{j}", "stack 0; unstack 0"), "at the most"),
        (Rule("a", "b", "stack 0"), "holes [] of the source need"),
        (Rule("a", "b", "unstack 0"), "holes [] of the target need"),
        (Rule("a", "b", "reshape 2 3"), "unknown operation 'reshape'; known are transpose, merge"),
        (Rule("a", "b", "merge"), "merge takes 1 argument(s), not 0"),
        (Rule("a", "b", "split 0 2"), "split takes 3 argument(s), not 2"),
        (Rule("a", "b", "cast"), "cast takes 1 argument(s), not 0"),
        (Rule("a", "b", "cast nothing"), "unknown dtype 'nothing'"),
        (Rule("a", "b", "cast object"), "does not hold numbers"),
        (Rule("a", "b", "transpose 1 x"), "transpose takes numbers, not 1 x"),
        (Rule("a", "b", "merge -1"), "merge takes numbers"),
        (Rule("a", "b", "merge ²"), "merge takes numbers"),
        (Rule("a/{i}", "b", "unstack 0 1"), "unstack takes 1 argument(s), not 2"),
        (Rule("a/{i}", "b", "unstack 0 x 4"), "unstack takes numbers"),
        (Rule("a", "b{"), "a brace is not closed"),
        (Rule("a", "}b/{i"), "a brace is not closed"),
        (Rule("a{i}}", "b{i}"), "a brace is not closed"),
        (Rule("{a", "b"), "a brace is not closed"),
        (Rule("{rest*}/a", "b/{rest*}"), "{rest*} stands for any path and so at the end only"),
        (Rule("a/{rest*}", "{rest*}/b"), "at the end only"),
        (Rule("a/{b|c*}", "d/{b|c*}"), "at the end only"),
    ],
    ids=str,
)
def test_faults_that_can_be_seen_without_a_checkpoint(rule: Rule, said: str):
    with pytest.raises(MappingError, match="The rule table has 1 problem:") as caught:
        check_rules([Rule("x", "y"), rule])
    assert said in str(caught.value)
    assert str(rule) in str(caught.value)


def test_all_faults_are_told_at_once():
    with pytest.raises(MappingError, match="3 problems") as caught:
        check_rules([Rule("a", "b", "turn"), Ignore("c{", "why"), Rule("a", "b", "merge")])
    assert all(word in str(caught.value) for word in ("turn", "c{", "merge takes"))


def test_a_table_that_says_all_there_is():
    check_rules(
        [
            Rule("a/{i}/{query|key}/{rest*}", "b/{i}/{query|key}/{rest*}"),
            Rule("c", "d/{i}", "transpose 1 0; stack 0; merge 0; cast bfloat16"),
            Rule("e/{gate|up}", "f", "split 0 2 3; part 0"),
            Rule("g/{i}", "h", "unstack 0 1 4"),
            Ignore("j/{rest*}", "not used"),
        ]
    )


# What a table does.


def test_holes_are_filled_alike():
    values = tree(a__0__query=(2,), a__0__key=(3,), a__12__query=(4,), b__x__y=(5,))
    found = apply(values, Rule("t{i}/{query|key}", "a/{i}/{query|key}"), Rule("u/{r*}", "b/{r*}"))
    assert_equal(
        results(found),
        {
            "t0/query": values["a/0/query"],
            "t0/key": values["a/0/key"],
            "t12/query": values["a/12/query"],
            "u/x/y": values["b/x/y"],
        },
    )


def test_a_hole_that_comes_twice_stands_for_the_same():
    values = tree(a__1__b1=(2,), a__1__b2=(2,))
    said = fails(values, Rule("t/{i}", "a/{i}/b{i}"))
    assert "1 problem" in said
    assert "a/1/b2: no rule takes this leaf" in said


@pytest.mark.parametrize("number", ["01", "1_0", "", "-1", "٣", "1 "])
def test_a_number_has_one_spelling(number: str):
    assert "no rule takes" in fails({f"a/{number}": values_of((2,))}, Rule("t/{i}", "a/{i}"))


def test_numbers_stack_in_their_order_and_words_in_theirs():
    numbers = {f"a/{i}/w": values_of((2, 3), seed=i) for i in reversed(range(12))}
    words = {f"b/{word}": values_of((2, 3), seed=ord(word)) for word in "xyz"}
    found = apply(
        numbers | words, Rule("s", "a/{i}/w", "stack 1"), Rule("j", "b/{z|x|y}", "join 0")
    )
    assert_equal(
        results(found),
        {
            "s": np.stack([numbers[f"a/{i}/w"] for i in range(12)], 1),
            "j": np.concatenate([words[f"b/{word}"] for word in "zxy"], 0),
        },
    )


def test_stack_undoes_unstack_and_join_undoes_part():
    values = tree(stacked=(3, 4, 2), joined=(6, 2))
    apart = results(
        apply(
            values,
            Rule("s/{i}", "stacked", "unstack 1"),
            Rule("j/{gate|up|down}", "joined", "part 0"),
        )
    )
    assert_equal(apart, {f"s/{i}": values["stacked"][:, i] for i in range(4)} | {
        f"j/{word}": values["joined"][2 * i : 2 * i + 2]
        for i, word in enumerate(["gate", "up", "down"])
    })  # fmt: skip
    back = apply(
        apart,
        Rule("stacked", "s/{i}", "stack 1"),
        Rule("joined", "j/{gate|up|down}", "join 0"),
    )
    assert_equal(results(back), values)


def test_merge_undoes_split_and_transposes_undo_each_other():
    values = tree(a=(4, 6), b=(2, 3, 4))
    found = apply(
        values,
        Rule("a", "a", "split 1 2 3; merge 1"),
        Rule("b", "b", "transpose 2 0 1; transpose 1 2 0"),
    )
    assert_equal(results(found), values)


def test_targets_are_numbered_from_an_offset_in_steps():
    values = tree(block_0=(2, 3), block_1=(2, 3))
    found = apply(
        values,
        *(Rule("layers_{i}", f"block_{j}", f"unstack 0 {j} 2") for j in range(2)),
    )
    assert_equal(
        results(found),
        {f"layers_{2 * r + j}": values[f"block_{j}"][r] for r in range(2) for j in range(2)},
    )


def test_steps_before_and_after_a_gathering_act_on_one_and_on_the_whole():
    values = {f"a/{i}": values_of((6,), seed=i) for i in range(4)}
    found = apply(values, Rule("t", "a/{i}", "split 0 2 3; stack 0; transpose 1 0 2; merge 1"))
    wanted = np.stack([values[f"a/{i}"].reshape(2, 3) for i in range(4)])
    wanted = wanted.transpose(1, 0, 2).reshape(2, 12)
    assert_equal(results(found), {"t": np.ascontiguousarray(wanted)})


def test_a_step_after_a_stack_need_not_fit_what_is_stacked():
    values = {f"a/{i}": values_of((3,), seed=i) for i in range(2)}
    found = apply(values, Rule("t", "a/{i}", "stack 1; merge 0"))
    assert_equal(results(found), {"t": np.stack([values["a/0"], values["a/1"]], 1).reshape(6)})


def test_ignored_leaves_are_told_with_their_reason():
    values = tree(a=(2,), n__x=(2,), n__y__z=(2,))
    found = apply(values, Rule("t", "a"), Ignore("n/{rest*}", "not used"), Rule("u", "n/x"))
    assert found.ignored == (("n/x", "not used"), ("n/y/z", "not used"))
    assert [leaf.target for leaf in found.leaves] == ["t"]


# What does not fit.


def test_a_leaf_that_no_rule_takes_is_told_with_the_nearest():
    values = tree(lm__final_ln__scale=(2,), lm__x_layers_3__self_atention__query__w=(2,))
    said = fails(
        values,
        Rule("n", "lm/final_ln/scale"),
        Rule("q_{i}", "lm/x_layers_{i}/self_attention/query/w"),
        Rule("z", "unlike"),
    )
    assert (
        "lm/x_layers_3/self_atention/query/w: no rule takes this leaf; the nearest are "
        "lm/x_layers_{i}/self_attention/query/w" in said
    )


def test_a_leaf_that_two_rules_take():
    said = fails(tree(a__1=(2,)), Rule("t", "a/1"), Rule("u/{i}", "a/{i}"))
    assert "a/1: matched by t <- a/1 and by u/{i} <- a/{i}" in said


def test_a_target_that_is_filled_twice():
    said = fails(tree(a=(2,), b=(2,)), Rule("t", "a"), Rule("t", "b"))
    assert "t: filled by t <- a and by t <- b" in said
    said = fails(tree(a=(2,), b=(2, 2)), Rule("t/{i}", "b", "unstack 0"), Rule("t/1", "a"))
    assert "t/1: filled by" in said


def test_a_target_that_is_a_leaf_and_a_folder():
    said = fails(tree(a=(2,), b=(2,)), Rule("t/x", "a"), Rule("t/x/y/z", "b"))
    assert "t/x/y/z: lies below t/x, which is a leaf itself" in said


@pytest.mark.parametrize(
    ("numbers", "lacks"),
    [((1, 2), "0"), ((0, 2), "1"), ((10**12,), "0"), ((0, 1, 2, 9, 10, 11), "3, 4, 5")],
)
def test_a_number_that_is_missing(numbers: tuple[int, ...], lacks: str):
    values = {f"a/{i}": values_of((2,)) for i in numbers}
    said = fails(values, Rule("t", "a/{i}", "stack 0"))
    assert f"t: no source for i = {lacks} (from a/" in said


def test_a_word_that_is_missing():
    said = fails(tree(a__x=(2,), a__z=(2,)), Rule("t", "a/{x|y|z}", "stack 0"))
    assert "t: no source for x|y|z = y (from a/x, a/z by stack 0)" in said


def test_sources_of_different_shapes():
    said = fails(tree(a__0=(2,), a__1=(3,)), Rule("t", "a/{i}", "stack 0"))
    assert "t: cannot be put together: [2] float32, [3] float32" in said


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule("t", "a", "transpose 0 1"), "does not fit shape [4, 6, 2]"),
        (Rule("t", "a", "merge 2"), "merge 2 does not fit shape [4, 6, 2]"),
        (Rule("t", "a", "split 1 2 2"), "split 1 into (2, 2) does not fit shape [4, 6, 2]"),
        (Rule("t/{i}", "a", "unstack 3"), "no axis 3 in shape [4, 6, 2]"),
        (Rule("t/{x|y}", "a", "unstack 0"), "axis 0 of [4, 6, 2] does not give 2 parts"),
        (Rule("t/{x|y|z}", "a", "part 0"), "axis 0 of [4, 6, 2] does not give 3 parts"),
        (Rule("t/{i}", "a", "part 0"), "part needs a hole with words"),
        (Rule("t/{i}", "a", "unstack 0 1 0"), "t/1: filled by"),
    ],
    ids=str,
)
def test_an_operation_that_does_not_fit(rule: Rule, said: str):
    found = fails(tree(a=(4, 6, 2)), rule)
    assert said in found


def test_an_axis_without_indices_has_nothing_to_unstack():
    said = fails(tree(a=(0, 2)), Rule("t/{i}", "a", "unstack 0"))
    assert "axis 0 of [0, 2] does not give 0 parts" in said


def test_a_required_rule_that_nothing_matches():
    said = fails(tree(a=(2,)), Rule("t", "a"), Rule("u", "b", required=True), Rule("v", "c"))
    assert "u <- b: no leaf matches" in said
    assert "1 problem" in said


def test_every_problem_is_in_one_error():
    said = fails(
        tree(a=(2,), b=(2,), c=(2,), d__1=(2,), e=(2,)),
        Rule("t", "a"),
        Rule("t", "b"),
        Rule("u", "c", "merge 0"),
        Rule("v", "d/{i}", "stack 0"),
        Rule("w", "f", required=True),
    )
    assert "The table does not fit the checkpoint; 5 problems:" in said
    for line in ("e: no rule", "t: filled by", "u: merge 0", "v: no source", "w <- f: no leaf"):
        assert f"\n  {line}" in said


def test_very_many_problems_are_counted():
    said = fails({f"a{i}": values_of((1,)) for i in range(50)}, Rule("t", "b"))
    assert "50 problems:" in said
    assert said.endswith("... and 30 more")
    assert len(said.splitlines()) == 22


# Sizes: nothing grows with leaves times rules.


@pytest.fixture
def matched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every path that is matched against a pattern."""
    compared: list[str] = []
    match = converters.rules.apply._match

    def counted(rule: Rule, path: str):
        compared.append(path)
        return match(rule, path)

    monkeypatch.setattr(converters.rules.apply, "_match", counted)
    return compared


def test_each_leaf_of_twenty_thousand_is_compared_with_one_rule(matched: list[str]):
    names = [f"part_{letter}/w{n}" for letter in "abcdefghij" for n in range(10)]
    rules = [Rule(f"layers/{name}", f"x_{{i}}/{name}", "stack 0") for name in names]
    leaf = values_of(())
    found = apply({f"x_{i}/{name}": leaf for i, name in product(range(200), names)}, *rules)
    assert len(found.leaves) == 100
    assert len(matched) == 20_000 * 10  # ten rules differ by numbers alone


def test_twenty_thousand_targets_of_one_rule(matched: list[str]):
    found = apply({"a": values_of((20_000, 1))}, Rule("t/{i}", "a", "unstack 0"))
    assert len(found.leaves) == 20_000
    assert len(matched) == 1


# Small parts.


def test_holes_and_fillings():
    assert holes("a/{i}/{q|k}/{rest*}") == {"i": None, "q|k": ("q", "k"), "rest*": None}
    assert fill("a/{i}/{q|k}{i}", {"i": "3", "q|k": "q"}) == "a/3/q3"


def test_nearest_names():
    assert nearest("self_atention", ["mlp", "self_attention", "norm"]) == ["self_attention"]
    assert nearest("zzz", ["mlp", "norm"]) == []


def test_a_rule_reads_as_it_is_written():
    assert str(Rule("a", "b", "merge 0")) == "a <- b (merge 0)"
    assert str(Rule("a", "b")) == "a <- b"
    assert re.fullmatch(Rule("", "a.b/{i}").pattern, "a.b/7")
    assert not re.fullmatch(Rule("", "a.b/{i}").pattern, "axb/7")
