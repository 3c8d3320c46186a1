"""A sampler for GPT-J: shared prefix, and slots that are filled again at once."""

import contextlib
import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import keras
import numpy as np
from jax import numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from star_keras.distribution import CausalLMParallel, variable_shapes
from star_keras.models import GPTJCausalLM
from star_keras.packing import tokenize_prompts
from star_keras.sampling.model_sampler import ModelSampler
from star_keras.sampling.sampler import Completion, SampleRequest

# Decoding steps between two looks at the text, at most.
_BURST = 16
# Prompts are prefilled together by this share of the slots.
_GROUPS = 8
# The last rows, and few requests, have this share of the slots.
_FEW = 4
# From so many slots on CPU has two halves; with 32 they gain nothing.
_HALVES = 64


@dataclasses.dataclass(kw_only=True)
class _Row:
    """What a slot works on."""

    request: int
    prompt_ids: list[int]
    key_data: np.ndarray
    new_ids: list[int] = dataclasses.field(default_factory=list)

    @property
    def length(self):
        return len(self.prompt_ids) + len(self.new_ids)


class ContinuousSampler(ModelSampler):
    """Decodes GPT-J in slots; a finished row makes place for the next prompt.

    The shared prefix is prefilled once a call and stored once; attention to it
    is one matrix product for all rows. What follows it has a cache of its own
    in one of `batch_size` slots. The caches are rings, turned so that all slots
    write their next token to the same place. Decoding runs in compiled bursts. Between
    two of them the rows that are done leave their slots, and the next prompts
    are prefilled, a group at a time, the longest first. Requests with the
    same prompt are prefilled once where they enter together. The last rows move
    to a cache of a quarter of the slots.

    Lengths are rounded up (prompts to two sizes an octave, caches, which every
    step reads, to four), so a run compiles a few functions a prefix length,
    whatever its prompts.

    On CPU an even number of 64 slots or more is two halves, and all of the above
    goes on in each, in a thread of its own: XLA does the products with the rows'
    caches on one thread. Settings that are the calling thread's alone, such as
    `with jax.default_matmul_precision(...)`, do not reach them.

    Under a `keras.distribution` the slots are split over its batch axis and
    the heads like the weights of the model.

    Args:
        model: A `GPTJCausalLM` with a preprocessor.
        batch_size: int. Number of slots. Defaults to `64`.
        **kwargs: See `ModelSampler`.

    Reference:
        [Orca](https://www.usenix.org/conference/osdi22/presentation/yu),
        scheduling by iteration;
        [Hydragen](https://arxiv.org/abs/2402.05099), shared prefixes.
    """

    def __init__(self, model, *, batch_size=64, **kwargs):
        super().__init__(model, batch_size=batch_size, **kwargs)
        if not isinstance(model, GPTJCausalLM):
            raise ValueError(
                "Invalid value for argument `model`. Expected a `GPTJCausalLM`. "
                f"Received: model={model!r}. Use `BatchSampler` for other models."
            )
        self._heads_axis = None
        if self._mesh is not None:
            kernel = model.backbone.transformer_layers[0].self_attention.key.kernel
            layout = keras.distribution.distribution().get_variable_layout(kernel)
            self._heads_axis = layout.axes[1]
        on_cpu = self._mesh is None and jax.default_backend() == "cpu"
        two = on_cpu and batch_size >= _HALVES and batch_size % 2 == 0
        self._threads = 2 if two else 1
        self._slots = batch_size // self._threads
        self.group_size = -(-self._slots // _GROUPS)
        few = self._slots // _FEW
        if self._mesh is not None:
            few -= few % self._mesh.shape[self._batch_axis]
        self._few = few or self._slots
        self._cast = jax.jit(lambda x: x.astype(self.model.compute_dtype))
        self._resize = jax.jit(self._resize_cache, static_argnums=(2, 3))
        self._prefill = jax.jit(self._prefill_prompts)
        self._place = jax.jit(self._place_rows, donate_argnums=0)
        self._move = jax.jit(self._move_rows)
        self._decode = jax.jit(self._decode_burst, donate_argnums=1)

    def sample(
        self, requests: Sequence[SampleRequest], *, stop: Sequence[str] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        if not requests:
            return
        prefix_ids, prompts = self._tokenize(requests)
        self._check_lengths(requests, prompts, len(prefix_ids))
        variables = self._variables()
        prefix = ()
        if prefix_ids:
            token_ids = np.zeros((1, bucket(len(prefix_ids), 64)), "int32")
            token_ids[0, : len(prefix_ids)] = prefix_ids
            cache = self._prefill(variables, token_ids, prefix)
            prefix = (cache, np.int32(len(prefix_ids)))
        # Equal prompts stand together.
        order = sorted(
            range(len(requests)), key=lambda i: (-len(prompts[i]), prompts[i])
        )
        rows = (
            _Row(
                request=i,
                prompt_ids=prompts[i],
                key_data=self._key_data(requests[i].seed),
            )
            for i in order
        )
        waiting: list[deque[_Row]] = [deque() for _ in range(self._threads)]
        for _, equal in itertools.groupby(rows, key=lambda row: row.prompt_ids):
            while several := list(itertools.islice(equal, self._slots)):
                min(waiting, key=len).extend(several)
        parts = [self._sample(variables, prefix, x, stop) for x in waiting if x]
        batches = _in_turns(parts) if len(parts) > 1 else parts[0]
        with contextlib.closing(batches):
            for batch in batches:
                if batch:
                    yield batch

    def _sample(self, variables, prefix, waiting, stop):
        """Complete the waiting rows; yields after each burst."""
        count = self._few if len(waiting) <= self._few else self._slots
        slots: list[_Row | None] = [None] * count
        cache, place = None, np.int32(0)

        ended: list[_Row] = []
        while waiting or any(slots):
            if not waiting and len(slots) - slots.count(None) <= self._few < len(slots):
                kept = [i for i, row in enumerate(slots) if row is not None]
                free = self._few - len(kept)
                cache = self._move(cache, np.array(kept + kept[:1] * free, "int32"))
                slots = [*(slots[i] for i in kept), *([None] * free)]
            groups = []
            # A group takes as long with fewer prompts: only the last has fewer.
            while waiting and slots.count(None) >= min(self.group_size, len(waiting)):
                groups.append(self._fill(slots, waiting))
            free, wanted = slots.count(None), min(self.group_size, len(waiting))
            longest = max(row.length for row in slots if row is not None)
            length = _cache_length(longest)
            size = cache[0][0].shape[2] if cache else 0
            # What is a little too long stays, since rows come and go.
            if not length <= size < 1.4 * length:
                cache = self._resize(cache, place, length, len(slots))
                place = np.int32(0)
            for token_ids, lengths, source in groups:
                new = self._prefill(variables, token_ids, prefix)
                cache = self._place(cache, place, new, lengths, source)
            cache, place, written = self._decode(
                variables,
                cache,
                place,
                prefix,
                *self._rows(slots),
                # How many may end before the slots are worth filling again.
                np.int32(wanted - free if waiting else count),
            )
            # The device works while the text is read.
            yield [(row.request, self._finished(row.new_ids, stop)) for row in ended]
            ended = []
            place = np.asarray(place)
            for slot, new_ids in enumerate(np.asarray(written)):
                if (row := slots[slot]) is not None:
                    row.new_ids += new_ids[new_ids >= 0].tolist()
                    if self._is_done(row, stop):
                        ended.append(row)
                        slots[slot] = None
        yield [(row.request, self._finished(row.new_ids, stop)) for row in ended]

    def _values(self):
        # Matrices in the dtype that they are used in. A burst would cast them
        # all again, which takes as long as a token.
        return [
            self._cast(value)
            if value.ndim > 1 and value.dtype != self.model.compute_dtype
            else value
            for value in super()._values()
        ]

    def variable_shapes(self):
        """Shapes of `_variables()`."""
        distribution = keras.distribution.distribution()
        if getattr(distribution, "zero", False):
            distribution = CausalLMParallel(distribution.device_mesh)
        dtype = self.model.compute_dtype
        return [
            x.update(dtype=dtype) if x.ndim > 1 else x
            for x in variable_shapes(self.model.variables, distribution)
        ]

    def lower(self, *, prefix_length, prompt_length, cache_length):
        """Lower the compiled steps of `sample` from shapes alone.

        The model's variables need no values, see
        `star_keras.distribution.from_shapes`.

        Args:
            prefix_length: int. Tokens of the shared prefix, 0 for none.
            prompt_length: int. Tokens of the longest prompt behind it.
            cache_length: int. Tokens of a prompt and its completion so far.

        Returns:
            A dict of `jax.stages.Lowered`: `"prefill"` of a group of prompts,
            and `"decode"`, a burst of tokens for all slots (half of them where
            there are two halves).
        """
        variables = self.variable_shapes()

        def cache(batch_size, length, *axes):
            sharding = None
            if self._mesh is not None:
                sharding = NamedSharding(self._mesh, PartitionSpec(*axes))
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
                jax.eval_shape(lambda: self.model.build_cache(batch_size, length)),
            )

        def array(dtype, *shape):
            return jax.ShapeDtypeStruct(shape, dtype)

        prefix = ()
        if prefix_length:
            prefix = (
                cache(1, bucket(prefix_length, 64), None, self._heads_axis),
                array("int32"),
            )
        prompts = (self.group_size, bucket(prompt_length - 1, 32))
        rows = self._slots
        return {
            "prefill": self._prefill.lower(variables, array("int32", *prompts), prefix),
            "decode": self._decode.lower(
                variables,
                cache(
                    rows,
                    _cache_length(cache_length),
                    self._batch_axis,
                    self._heads_axis,
                ),
                array("int32"),
                prefix,
                *(array("int32", rows) for _ in range(3)),
                array("bool", rows),
                array("uint32", rows, 2),
                array("int32"),
            ),
        }

    def _is_done(self, row, stop):
        if (
            len(row.new_ids) == self.max_new_tokens
            or row.new_ids[-1] == self.tokenizer.end_token_id
        ):
            return True
        # A stop string of `n` bytes has `n` tokens at most.
        longest = max((len(s.encode()) for s in stop), default=0)
        text = self._text(row.new_ids[-_BURST - longest :]) if longest else ""
        return any(s in text for s in stop)

    def _tokenize(self, requests):
        """Token ids of the shared prefix, and of the rest of each prompt."""
        prefix = self._shared_prefix(requests)
        if not prefix:
            return [], self._prompt_ids(requests)
        rests = [request.prompt[len(prefix) :] for request in requests]
        (prefix_ids,) = tokenize_prompts(self.model.preprocessor, [prefix])
        return prefix_ids, [list(ids) for ids in self.tokenizer(rests)]

    def _fill(self, slots, waiting):
        """Put waiting rows into free slots: as many as one group prefills.

        Returns:
            `(token_ids, lengths, source)`: int arrays `(group_size, length)`,
            the prompts without their last tokens, `(group_size,)`, how many
            those are, and `(slots,)`, the row of `token_ids` that each
            slot takes, or -1.
        """
        source = np.full(len(slots), -1, "int32")
        prompts: list[list[int]] = []
        while waiting and None in slots:
            prompt_ids = waiting[0].prompt_ids
            if not prompts or prompts[-1] != prompt_ids:
                if len(prompts) == self.group_size:
                    break
                prompts.append(prompt_ids)
            slot = slots.index(None)
            slots[slot] = waiting.popleft()
            source[slot] = len(prompts) - 1
        token_ids = np.zeros(
            (self.group_size, bucket(len(prompts[0]) - 1, 32)), "int32"
        )
        lengths = np.zeros(self.group_size, "int32")
        for row, prompt_ids in enumerate(prompts):
            lengths[row] = len(prompt_ids) - 1
            token_ids[row, : lengths[row]] = prompt_ids[:-1]
        return token_ids, lengths, source

    def _rows(self, slots):
        """Arrays `(slots, ...)` of the rows, as `_decode_burst` wants."""
        rows = len(slots)
        token, position, count = np.zeros((3, rows), "int32")
        key_data = np.zeros((rows, 2), "uint32")
        active = np.array([row is not None for row in slots])
        for i, row in enumerate(slots):
            if row is not None:
                token[i] = (row.new_ids or row.prompt_ids)[-1]
                count[i] = len(row.new_ids)
                position[i] = row.length - 1
                key_data[i] = row.key_data
        return token, position, count, active, key_data

    # === Compiled ===

    def _resize_cache(self, cache, place, length, slots):
        """A cache of this length with what is in `cache`, or an empty one.

        Args:
            cache: `None`, or what `build_cache()` makes.
            place: int scalar. Where the next tokens go.
            length: int.
            slots: int. Rows of an empty one.

        Returns:
            The cache, whose next tokens go to the first place.
        """
        if cache is None:
            cache = self.model.build_cache(slots, length)
        more = max(length - cache[0][0].shape[2], 0)
        cache = jax.tree.map(
            # The newest last, then older ones dropped or empty places put first.
            lambda x: jnp.pad(
                jnp.roll(x, -place, axis=2)[:, :, -length:],
                ((0, 0), (0, 0), (more, 0), (0, 0)),
            ),
            cache,
        )
        return self._split(cache, self._batch_axis, self._heads_axis)

    def _prefill_prompts(self, variables, token_ids, prefix):
        with self._with_variables(variables):
            cache = self.model.build_cache(*token_ids.shape)
            _, _, cache = self.model.call_with_cache(token_ids, cache, 0, *prefix)
        return self._split(cache, None, self._heads_axis)

    def _place_rows(self, cache, place, new, lengths, source):
        """Put new rows into slots, see `_fill`, their next token at `place`."""
        is_new = (source >= 0)[:, None, None, None]
        length = cache[0][0].shape[2]

        def put(x, new):
            # Prompts fit into the cache, what they were rounded up to may not.
            new = new[:, :, :length]
            more = length - new.shape[2]
            new = jnp.pad(new, ((0, 0), (0, 0), (0, more), (0, 0)))
            new = jax.vmap(lambda row, n: jnp.roll(row, place - n, axis=1))(
                new, lengths
            )
            return jnp.where(is_new, new[source], x)

        cache = jax.tree.map(put, cache, new)
        return self._split(cache, self._batch_axis, self._heads_axis)

    def _move_rows(self, cache, rows):
        cache = jax.tree.map(lambda x: x[rows], cache)
        return self._split(cache, self._batch_axis, self._heads_axis)

    def _decode_burst(
        self,
        variables,
        cache,
        place,
        prefix,
        token,
        position,
        count,
        active,
        key_data,
        enough,
    ):
        """Decode until enough rows have ended, `_BURST` tokens at most.

        Args:
            cache, prefix: What the rows and their shared prefix have so far.
            place: int scalar. Where in the cache the last tokens go.
            token, position, count: int arrays `(slots,)`. Last tokens,
                their positions behind the prefix, and how many are new.
            active: bool array `(slots,)`.
            key_data: uint32 array `(slots, 2)`.
            enough: int scalar.

        Returns:
            The cache, the next place, and an int array `(slots, _BURST)`
            of new tokens, -1 where there is none.
        """
        before = jnp.sum(active)
        length = cache[0][0].shape[2]
        start = prefix[1] if prefix else 0

        def unfinished(state):
            step, *_, active, _ = state
            left = jnp.sum(active)
            return (step < _BURST) & (left > 0) & (before - left < enough)

        def decode(state):
            step, cache, place, token, position, count, active, written = state
            # How many tokens ago a place was written.
            age = jnp.mod(place - jnp.arange(length, dtype="int32"), length)
            there = position[:, None] - age
            logits, _, cache = self.model.call_with_cache(
                token[:, None],
                cache,
                place,
                *prefix,
                positions=start + position[:, None],
                cache_positions=jnp.where(
                    there >= 0, start + there, jnp.iinfo("int32").max
                ),
            )
            place = jnp.mod(place + 1, length)
            new = self._next_token(logits[:, 0], key_data, count)
            written = written.at[:, step].set(jnp.where(active, new, -1))
            token = jnp.where(active, new, token)
            position, count = position + active, count + active
            active = (
                active
                & (new != self.tokenizer.end_token_id)
                & (count < self.max_new_tokens)
            )
            return step + 1, cache, place, token, position, count, active, written

        written = jnp.full((len(token), _BURST), -1, "int32")
        state = (0, cache, place, token, position, count, active, written)
        with self._with_variables(variables):
            _, cache, place, *_, written = jax.lax.while_loop(unfinished, decode, state)
        cache = self._split(cache, self._batch_axis, self._heads_axis)
        return cache, *self._split((place, written))


def _in_turns(generators):
    """Items of generators that run beside each other, one of each in turn."""
    with ThreadPoolExecutor(len(generators)) as pool:
        steps = deque((x, pool.submit(next, x, None)) for x in generators)
        while steps:
            generator, step = steps.popleft()
            if (item := step.result()) is not None:
                steps.append((generator, pool.submit(next, generator, None)))
                yield item


def _cache_length(longest):
    """Places of the caches when the longest row has so many tokens."""
    return bucket(longest + _BURST, 64, 4)


def bucket(length: int, least: int, parts: int = 2) -> int:
    """Rounds a length up to `least`, or to one of `parts` sizes an octave."""
    octave = least
    while octave * 2 < length:
        octave *= 2
    step = octave // parts
    return max(least, -(-length // step) * step)
