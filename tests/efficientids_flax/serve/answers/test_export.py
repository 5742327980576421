"""Histories of clients become the prompts that the model was trained on."""

from typing import Any

from efficientids_flax.serve.answers.export import Export
from efficientids_flax.stored import ItemWords


def test_words_stand_around_items_and_nothing_around_what_has_a_mask():
    words = ItemWords([7], [[], []], [[8], [9, 9]], [[], []], False, items=3, tokens=5)
    nothing: Any = None
    export = Export(nothing, nothing, 6, words)
    # 7 [1] 9 9 [0] 8 [1] of the last three items; of its tokens the last five.
    assert export.asked([0, 0, 1, 0, 1], None) == ([9, 9, 0, 8, 1], [0, 0, 1, 0, 1])
    assert export.asked([1], None) == ([7, 1], [0, 1])
    own = [5, 0, 1, 5, 0, 1, 5]
    assert export.asked(own, [0, 1, 1, 0, 1, 1, 0]) == (own[1:], [1, 1, 0, 1, 1, 0])
    plain = export._replace(words=None)
    assert plain.asked(own, None) == (own[1:], None)
