"""Generate text: prefill of the prompt, then token by token, all in one compiled program.

Letters: B batch, T time of the prompts, D model width, V words, G tokens to generate.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.array_checks import as_numpy
from efficientids_flax.backbone.cache import KVCache, make_cache
from efficientids_flax.backbone.decoder import Decoder
from efficientids_flax.backbone.inputs import Inputs, filled, input_problems
from efficientids_flax.backbone.masks import positions_from_paddings
from efficientids_flax.backbone.sampling import SamplingConfig, sample
from efficientids_flax.config import BackboneConfig
from efficientids_flax.config.record import listed

GREEDY = SamplingConfig()


class Generated(NamedTuple):
    """The generated tokens.

    Attributes:
        tokens: int32 [B, G], without the prompts; `pad_id` after the end.
        lengths: int32 [B], number of tokens up to and including the end token.
    """

    tokens: jax.Array
    lengths: jax.Array


class _State(NamedTuple):
    """State between two steps: `token` [B] is chosen but not read yet, `position` [B] is its
    position."""

    step: jax.Array
    token: jax.Array
    position: jax.Array
    done: jax.Array
    tokens: jax.Array
    lengths: jax.Array
    cache: KVCache
    rng: jax.Array


def generate(
    decoder: Decoder,
    params: Mapping[str, Any],
    ids: jax.Array | np.ndarray | None = None,
    paddings: jax.Array | np.ndarray | None = None,
    *,
    max_new_tokens: int,
    inputs_embeds: jax.Array | np.ndarray | None = None,
    inputs_indicator: jax.Array | np.ndarray | None = None,
    sampling: SamplingConfig = GREEDY,
    rng: jax.Array | None = None,
    eos_id: int | Sequence[int] = (),
    pad_id: int = 0,
) -> Generated:
    """Continue prompts.

    Positions skip padding, which may be on either side of a prompt (as in HuggingFace's
    `generate`).

    Args:
        decoder: a language model.
        params: its parameters.
        ids: int [B, T]; or
        inputs_embeds: [B, T, D].
        paddings: [B, T], 1 on padding; None: no padding.
        max_new_tokens: G; generation stops earlier if all rows have ended.
        inputs_indicator: [B, T], 1 on the prefix, for prefix models.
        sampling: how tokens are drawn; default: greedy.
        rng: random key, for sampling.
        eos_id: token or tokens that end a text.
        pad_id: token that fills rows after their end.

    Raises:
        ValueError: listing all inputs with a wrong shape, dtype or values out of range (not checked
            inside jit), too many tokens, or a missing key.
    """
    config = decoder.config
    given = Inputs(
        _array(ids, "ids"),
        _array(inputs_embeds, "inputs_embeds"),
        _array(paddings, "paddings"),
        inputs_indicator=_array(inputs_indicator, "inputs_indicator"),
    )
    prompts: Any = inputs_embeds if ids is None else ids
    ends = tuple(np.ravel(np.asarray(eos_id)).tolist())
    (pad_id,) = np.ravel(np.asarray(pad_id)).tolist()
    problems = input_problems(config, given)
    time = None if problems else jnp.shape(prompts)[1]
    problems += _problems(config, time, max_new_tokens, sampling, rng, ends, pad_id)
    if problems:
        raise ValueError(listed("generate", problems))
    rng = jax.random.key(0) if rng is None else rng
    return _generate(decoder, max_new_tokens, sampling, ends, pad_id, params, given, rng)


def _array(given: Any, name: str) -> Any:
    """An array for the compiled program, which takes a list for many numbers."""
    return given if given is None or isinstance(given, jax.Array) else as_numpy(given, name)


def _problems(
    config: BackboneConfig,
    time: int | None,
    count: int,
    sampling: SamplingConfig,
    rng: jax.Array | None,
    ends: tuple[Any, ...],
    pad_id: Any,
) -> list[str]:
    """Problems with arguments other than arrays; `time` is None if the arrays are wrong."""
    problems = [] if time != 0 else ["ids, inputs_embeds: found prompts without a single token"]
    words, longest = config.vocab_size, config.max_positions
    if not words:
        problems.append("vocab_size: a model without words generates none, found 0")
    if not isinstance(count, int | np.integer) or count < 1:
        problems.append(f"max_new_tokens: expected at least 1, found {count!r}")
    elif config.position_embedding == "learned" and longest and time and time + count > longest:
        problems.append(f"max_new_tokens: {time} + {count} tokens, max_positions is {longest}")
    if sampling.temperature > 0 and rng is None:
        problems.append("rng: sampling needs a key, found None")
    for name, numbers in (("eos_id", ends), ("pad_id", (pad_id,))):
        outside = [n for n in numbers if type(n) is not int or not 0 <= n < words]
        if words and outside:
            found = ", ".join(map(repr, outside))
            problems.append(f"{name}: found {found}, expected in [0, {words}), a word")
    return problems


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _generate(
    decoder: Decoder,
    count: int,
    sampling: SamplingConfig,
    ends: tuple[int, ...],
    pad_id: int,
    params: Mapping[str, Any],
    given: Inputs,
    rng: jax.Array,
) -> Generated:
    """Prefill and decode."""
    ids, embeds, tokens = given.ids, given.inputs_embeds, filled(decoder.config, given)
    paddings, prefix = tokens.paddings, tokens.prefix
    batch, time = paddings.shape
    # Move padding to the left, so that all rows continue at the same place of the cache, and
    # sliding windows count only tokens.
    order = jnp.argsort(paddings <= 0, axis=1, stable=True)
    paddings = jnp.take_along_axis(paddings, order, axis=1)
    if ids is not None:
        ids = jnp.take_along_axis(ids, order, axis=1)
    if embeds is not None:
        embeds = jnp.take_along_axis(embeds, order[..., None], axis=1)
    if prefix is not None:
        prefix = jnp.take_along_axis(prefix, order, axis=1).astype(jnp.int32)

    def read(cache: KVCache, **tokens: Any) -> tuple[jax.Array, KVCache]:
        """Logits [B, V] after the last of these tokens."""

        def run(module: Decoder) -> tuple[jax.Array, KVCache]:
            last = jnp.full((batch, 1), -1)
            hidden, grown = module.extend(cache=cache, at=last, **tokens)
            return module.logits(hidden)[:, 0], grown

        return decoder.apply({"params": params}, method=run)  # type: ignore[return-value]

    def choose(logits: jax.Array, rng: jax.Array) -> tuple[jax.Array, jax.Array]:
        rng, key = jax.random.split(rng)
        return sample(logits, sampling, key), rng

    logits, cache = read(
        make_cache(decoder.config, batch, time + count),
        ids=ids,
        inputs_embeds=embeds,
        paddings=paddings,
        positions=positions_from_paddings(paddings),
        inputs_indicator=prefix,
    )
    token, rng = choose(logits, rng)
    no_prefix = None if prefix is None else jnp.zeros((batch, 1), jnp.int32)
    first = _State(
        step=jnp.zeros((), jnp.int32),
        token=token,
        position=jnp.sum(paddings <= 0, axis=1, dtype=jnp.int32),
        done=jnp.zeros(batch, bool),
        tokens=jnp.full((batch, count), pad_id, jnp.int32),
        lengths=jnp.zeros(batch, jnp.int32),
        cache=cache,
        rng=rng,
    )

    def note(state: _State) -> _State:
        """Record the token in rows that have not ended."""
        token = jnp.where(state.done, pad_id, state.token)
        ended = jnp.isin(token, jnp.asarray(ends, jnp.int32)) if ends else False
        return state._replace(
            token=token,
            tokens=state.tokens.at[:, state.step].set(token),
            lengths=state.lengths + ~state.done,
            done=state.done | ended,
            step=state.step + 1,
        )

    def going(state: _State) -> jax.Array:
        return (state.step < count) & ~jnp.all(state.done)

    def reread(state: _State) -> _State:
        """The next token, after reading all `limit` tokens again with an empty cache."""
        assert limit is not None
        grown = state.tokens[:, : limit - time]
        filled = jnp.pad(paddings, ((0, 0), (0, limit - time)))
        given: dict[str, Any] = {"ids": None if ids is None else jnp.append(ids, grown, axis=1)}
        if embeds is not None:
            words: Any = decoder.apply({"params": params}, grown, method="embed")
            given["inputs_embeds"] = jnp.append(embeds, words.astype(embeds.dtype), axis=1)
        if prefix is not None:
            given["inputs_indicator"] = jnp.pad(prefix, ((0, 0), (0, limit - time)))
        positions = positions_from_paddings(filled)
        logits, cache = read(
            make_cache(decoder.config, batch, time + count),
            paddings=filled,
            positions=positions,
            **given,
        )
        token, rng = choose(logits, state.rng)
        return note(
            state._replace(token=token, position=positions[:, -1] + 1, cache=cache, rng=rng)
        )

    def advance(state: _State) -> _State:
        logits, cache = read(
            state.cache,
            ids=state.token[:, None],
            positions=state.position[:, None],
            inputs_indicator=no_prefix,
        )
        token, rng = choose(logits, state.rng)
        return note(state._replace(token=token, position=state.position + 1, cache=cache, rng=rng))

    state = note(first)
    limit = _reread_length(decoder.config)
    if limit is not None and time < limit < time + count:
        state = jax.lax.while_loop(lambda s: (s.step < limit - time) & going(s), advance, state)
        state = jax.lax.cond(going(state), reread, lambda state: state, state)
    last = jax.lax.while_loop(going, advance, state)
    return Generated(last.tokens, last.lengths)


def _reread_length(config: BackboneConfig) -> int | None:
    """The length at which all tokens are read again, see `RotaryScalingConfig`; None: never."""
    scaling = config.rotary.scaling if config.rotary else None
    if scaling is None or not scaling.reread_when_long:
        return None
    return (scaling.original_max_positions or 0) + 1
