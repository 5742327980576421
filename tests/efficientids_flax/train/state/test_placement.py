"""Functions of each leaf of a state."""

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.train.state.placement import of_each


def test_on_cpus_the_program_of_a_leaf_ends_before_the_next_begins():
    """Several that wait for other devices could take all threads, and hang."""
    squares = jax.jit(lambda leaf: jax.lax.fori_loop(0, 500, lambda _, x: x @ leaf, leaf))  # 50 ms
    begun, ended = [], []

    def program(leaf):
        ended.append([found.is_ready() for found in begun])
        begun.append(squares(leaf))
        return begun[-1]

    found = of_each(program, {name: jnp.eye(200) for name in "abc"})
    assert ended == [[], [True], [True, True]]
    np.testing.assert_array_equal(found["c"], np.eye(200))
