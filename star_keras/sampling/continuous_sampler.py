"""A sampler with one shared prefix, and slots that are refilled at once."""

from collections.abc import Iterator, Sequence

import jax
import keras

from star_keras.distribution import CausalLMParallel, variable_shapes
from star_keras.models.families import known_family
from star_keras.sampling.continuous_engine import ContinuousEngine
from star_keras.sampling.continuous_steps import ContinuousSteps
from star_keras.sampling.merged_lora import merged_shapes
from star_keras.sampling.model_sampler import ModelSampler
from star_keras.sampling.sampler import Completion, SampleRequest
from star_keras.sampling.sampling_methods import Greedy, request_key
from star_keras.sampling.scheduler import PartialSample
from star_keras.utils.errors import invalid
from star_keras.utils.texts import check_stop

# A group of prompts that are prefilled together fills this share of the slots.
_GROUPS = 8
# Few samples are decoded in this share of the slots.
_FEW = 4
# Samples of a stream, as a multiple of the slots, that are in slots or wait for one.
_AHEAD = 2
# Fewest slots of two workers on CPU; with 32 slots a second worker gains nothing.
_TWO_WORKERS = 64


def group_size(slots: int, devices: int) -> int:
    """Number of prompts that are prefilled together.

    Args:
        slots: Slots of a worker.
        devices: Devices of the batch axes. Each prefills its part of a group.
    """
    return -(-slots // (_GROUPS * devices)) * devices


class ContinuousSampler(ModelSampler):
    """Decodes in slots; the next prompt takes the slot of a finished sample.

    The shared prefix is computed and stored once a call; attention to it is one
    matrix product for all slots. The tokens behind it are in a cache with one
    row for each slot.

    Compiled code decodes a chunk of up to 16 tokens for all slots. After each
    chunk the finished samples leave their slots, and the next prompts are
    prefilled and inserted, a group at a time, the longest prompts first. Equal
    prompts are prefilled once. The last samples move to a cache of a quarter of the
    slots. `sample` takes all requests at once, `engine` also while it samples.

    Lengths are rounded up: those of prompts to two sizes an octave, those of
    caches, which every step reads, to four. So a run compiles few functions,
    whatever the lengths of its prompts.

    On CPU, an even `batch_size` of at least 64 is split between two workers,
    each in a thread of its own, because XLA computes the products with the
    cache on one thread. Thread-local settings of JAX, such as `with
    jax.default_matmul_precision(...)`, do not apply to the workers.

    Under a `keras.distribution` the slots are split over its batch axis and
    the heads like the weights of the model.

    Args:
        model: A `keras_hub.models.CausalLM` of a known family, with a preprocessor.
        batch_size: int. Number of slots. Defaults to `64`.
        **kwargs: See `ModelSampler`.

    Attributes:
        steps: `ContinuousSteps`. The compiled functions.
        num_workers: int. 1 or 2.
        slots: int. Slots of a worker.
        few_slots: int. Slots of a worker for its last samples.
        group_size: int. Prompts that are prefilled together.

    Raises:
        ValueError: if the family of the model is not known, or as for
            `ModelSampler`.

    Example:
    ```python
    sampler = ContinuousSampler(model, max_new_tokens=16)
    requests = [SampleRequest(prompt="Q: 1 + 1?\\nA:", name="sum")]
    for batch in sampler.sample(requests, stop=["\\n"]):
        for index, completion in batch:
            print(requests[index].name, completion.text)
    ```

    Reference:
        [Orca](https://www.usenix.org/conference/osdi22/presentation/yu),
        scheduling by iteration;
        [Hydragen](https://arxiv.org/abs/2402.05099), shared prefixes.
    """

    def __init__(self, model, *, batch_size=64, **kwargs):
        super().__init__(model, batch_size=batch_size, **kwargs)
        known_family(model)
        self.steps = ContinuousSteps(
            model,
            next_token=self.next_token,
            end_token_ids=self.reader.end_token_ids,
            layout=self.layout,
        )
        on_cpu = self.layout.mesh is None and jax.default_backend() == "cpu"
        two = on_cpu and batch_size >= _TWO_WORKERS and batch_size % 2 == 0
        self.num_workers = 2 if two else 1
        self.slots = batch_size // self.num_workers
        devices = self.layout.batch_devices
        self.group_size = group_size(self.slots, devices)
        few = self.slots // _FEW
        few -= few % devices
        self.few_slots = few or self.slots

    def sample(
        self, requests: Sequence[SampleRequest], *, stop: Sequence[str] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        check_stop(stop)
        if not requests:
            return
        tokenized = self.tokenize(requests)
        with self.engine(tokenized.prefix_ids) as engine:
            engine.feed(tokenized, stop=stop)
            yield from engine

    def sample_stream(self, prompts, wanted, *, stop=()):
        check_stop(stop)
        if not prompts:
            return
        tokenized = self.tokenize(prompts)
        count = 0
        with self.engine(tokenized.prefix_ids) as engine:
            while True:
                room = _AHEAD * self.batch_size - engine.num_unfinished
                samples = [
                    PartialSample(
                        request_id=number,
                        prompt_ids=tokenized[index],
                        key_data=request_key(self.seed, seed),
                        stop=tuple(stop),
                        log_probs=[] if tokenized.log_probs[index] else None,
                    )
                    for number, (index, seed) in enumerate(wanted(room), count)
                ]
                count += len(samples)
                engine.add_samples(samples)
                if not engine.has_unfinished_requests():
                    return
                if completions := engine.step():
                    yield completions

    def engine(
        self,
        prefix_ids: Sequence[int] = (),
        *,
        settings_by_request: bool = False,
        find_prefixes: bool = False,
    ) -> ContinuousEngine:
        """An engine that takes requests while it samples.

        Args:
            prefix_ids: Token ids that all prompts begin with. They are computed once.
                Defaults to none.
            settings_by_request: Whether requests may have a `RequestSettings`. All
                requests are then decoded by one compiled function, which reads them.
            find_prefixes: Whether to find beginnings that prompts share, see
                `FoundPrefixes`, and to compute them once. Each worker keeps the last
                four. Not with `prefix_ids`.

        Returns:
            A `ContinuousEngine`, with the weights that the model has now.

        Raises:
            ValueError: if `prefix_ids` are no token ids, or given with `find_prefixes`;
                with `settings_by_request`, if the sampler has a temperature, `top_k`,
                `top_p` or `min_p` itself.
        """
        if settings_by_request and self.method != Greedy():
            rule = "`False` unless the sampler itself is greedy"
            remedy = "Give the temperature and the rest with each request."
            raise invalid("settings_by_request", rule, True, remedy)
        if find_prefixes and len(prefix_ids):
            raise invalid("find_prefixes", "`False` with `prefix_ids`", True)
        return ContinuousEngine(
            self,
            self._variables(),
            prefix_ids,
            settings_by_request=settings_by_request,
            find_prefixes=find_prefixes,
        )

    # === Weights ===

    def _values(self):
        # Matrices in the compute dtype: to cast them in each decode chunk would
        # take as long as a token.
        return [
            self.steps.cast(value)
            if value.ndim > 1 and value.dtype != self.model.compute_dtype
            else value
            for value in super()._values()
        ]

    def variable_shapes(self) -> list[jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of the weights while sampling.

        Returns:
            One `jax.ShapeDtypeStruct` for each of `model.variables`, matrices in
            the compute dtype.
        """
        distribution = keras.distribution.distribution()
        if getattr(distribution, "zero", False):
            distribution = CausalLMParallel(distribution.device_mesh)
        dtype = self.model.compute_dtype
        shapes = variable_shapes(self.model.variables, distribution)
        return [
            x.update(dtype=dtype) if x.ndim > 1 else x
            for x in merged_shapes(self.model, shapes)
        ]

    def lower(
        self, *, prefix_length: int, prompt_length: int, cache_length: int
    ) -> dict[str, jax.stages.Lowered]:
        """Lower the compiled steps of `sample` from shapes alone.

        The variables of the model need no values, see
        `star_keras.planning.from_shapes`.

        Args:
            prefix_length: Tokens of the shared prefix, 0 for none.
            prompt_length: Tokens of the longest prompt behind the prefix.
            cache_length: Tokens of a prompt and its completion so far.

        Returns:
            `"prefill"`, of a group of prompts, and `"decode"`, of a decode chunk
            for the slots of one worker.
        """
        return self.steps.lower(
            self.variable_shapes(),
            slots=self.slots,
            group_size=self.group_size,
            prefix_length=prefix_length,
            prompt_length=prompt_length,
            cache_length=cache_length,
        )
