"""One worker of `ContinuousSampler`: its slots, and what goes in and out."""

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from star_keras.sampling.continuous_steps import cache_size, prompt_size
from star_keras.sampling.model_sampler import DECODE_CHUNK
from star_keras.sampling.sampler import Completion

if TYPE_CHECKING:
    from star_keras.sampling.continuous_sampler import ContinuousSampler


@dataclasses.dataclass(kw_only=True)
class PartialSample:
    """A request and the tokens sampled for it so far.

    Attributes:
        request: Index of the request.
        prompt_ids: Token ids of the prompt behind the shared prefix.
        key_data: uint32 array `(2,)`. Random key of the request.
        new_ids: Token ids sampled so far.
    """

    request: int
    prompt_ids: list[int]
    key_data: np.ndarray
    new_ids: list[int] = dataclasses.field(default_factory=list)

    def __len__(self):
        return len(self.prompt_ids) + len(self.new_ids)


class ContinuousWorker:
    """Completes samples in slots of its own.

    Args:
        sampler: The `ContinuousSampler`, which says how many slots there are.
        variables: List of arrays. Values of the variables of the model.
        prefix: The shared prefix, see `ContinuousSteps`.
        waiting: The samples to complete, the longest prompts first, equal
            prompts next to each other. The worker empties the queue.
        stop: Strings that end a completion.
    """

    def __init__(
        self,
        sampler: "ContinuousSampler",
        variables,
        prefix: tuple,
        waiting: deque[PartialSample],
        stop: Sequence[str],
    ):
        self.sampler = sampler
        self.variables = variables
        self.prefix = prefix
        self.waiting = waiting
        self.stop = stop
        few = len(waiting) <= sampler.few_slots
        count = sampler.few_slots if few else sampler.slots
        self.slots: list[PartialSample | None] = [None] * count
        self._cache = None
        self._write_index = np.int32(0)

    def run(self) -> Iterator[list[tuple[int, Completion]]]:
        """Complete all samples.

        Yields:
            After each decode chunk, a list of `(index of the request,
            completion)` of the samples that ended in the chunk before; it can
            be empty.
        """
        steps = self.sampler.steps
        count = len(self.slots)
        ended: list[PartialSample] = []
        while self.waiting or any(self.slots):
            self._compact()
            groups = []
            # A group takes the same time with fewer prompts: fill all but the last.
            while self.waiting and self._free >= self._wanted:
                groups.append(self._fill())
            self._resize()
            for token_ids, lengths, source in groups:
                new = steps.prefill(self.variables, token_ids, self.prefix)
                self._cache = steps.insert(
                    self._cache, self._write_index, new, lengths, source
                )
            self._cache, write_index, written = steps.decode(
                self.variables,
                self._cache,
                self._write_index,
                self.prefix,
                *self._slot_arrays(),
                # Slots that must end before the next group has room.
                np.int32(self._wanted - self._free if self.waiting else count),
            )
            # The device works while the host reads the text.
            yield self._completions(ended)
            self._write_index = np.asarray(write_index)
            ended = self._collect(np.asarray(written))
        yield self._completions(ended)

    @property
    def _free(self):
        return self.slots.count(None)

    @property
    def _wanted(self):
        return min(self.sampler.group_size, len(self.waiting))

    def _compact(self):
        """Move the last samples to fewer slots."""
        few = self.sampler.few_slots
        if self.waiting or not len(self.slots) - self._free <= few < len(self.slots):
            return
        kept = [i for i, sample in enumerate(self.slots) if sample is not None]
        free = few - len(kept)
        self._cache = self.sampler.steps.compact(
            self._cache, np.array(kept + kept[:1] * free, "int32")
        )
        self.slots = [*(self.slots[i] for i in kept), *([None] * free)]

    def _fill(self):
        """Move waiting samples to free slots: as many as one group prefills.

        Returns:
            `(token_ids, lengths, source)`, see `ContinuousSteps`. A prompt's
            last token is left to `decode`.
        """
        group_size = self.sampler.group_size
        source = np.full(len(self.slots), -1, "int32")
        prompts: list[list[int]] = []
        while self.waiting and None in self.slots:
            prompt_ids = self.waiting[0].prompt_ids
            if not prompts or prompts[-1] != prompt_ids:
                if len(prompts) == group_size:
                    break
                prompts.append(prompt_ids)
            slot = self.slots.index(None)
            self.slots[slot] = self.waiting.popleft()
            source[slot] = len(prompts) - 1
        token_ids = np.zeros((group_size, prompt_size(len(prompts[0]))), "int32")
        lengths = np.zeros(group_size, "int32")
        for row, prompt_ids in enumerate(prompts):
            lengths[row] = len(prompt_ids) - 1
            token_ids[row, : lengths[row]] = prompt_ids[:-1]
        return token_ids, lengths, source

    def _resize(self):
        """Make room for the next decode chunk."""
        longest = max(len(sample) for sample in self.slots if sample is not None)
        length = cache_size(longest)
        size = self._cache[0][0].shape[2] if self._cache else 0
        # A cache that is a little too long stays, since its samples come and go.
        if not length <= size < 1.4 * length:
            self._cache = self.sampler.steps.resize(
                self._cache, self._write_index, length, len(self.slots)
            )
            self._write_index = np.int32(0)

    def _slot_arrays(self):
        """`(token, position, count, active, key_data)` of `decode`."""
        slots = len(self.slots)
        token, position, count = np.zeros((3, slots), "int32")
        key_data = np.zeros((slots, 2), "uint32")
        active = np.array([sample is not None for sample in self.slots])
        for i, sample in enumerate(self.slots):
            if sample is not None:
                token[i] = (sample.new_ids or sample.prompt_ids)[-1]
                count[i] = len(sample.new_ids)
                position[i] = len(sample) - 1
                key_data[i] = sample.key_data
        return token, position, count, active, key_data

    def _collect(self, written):
        """Add new tokens to the samples; the samples that end leave their slots."""
        ended = []
        for slot, new_ids in enumerate(written):
            if (sample := self.slots[slot]) is not None:
                sample.new_ids += new_ids[new_ids >= 0].tolist()
                if self._is_done(sample):
                    ended.append(sample)
                    self.slots[slot] = None
        return ended

    def _is_done(self, sample):
        tokenizer = self.sampler.tokenizer
        if (
            len(sample.new_ids) == self.sampler.max_new_tokens
            or sample.new_ids[-1] in self.sampler.end_token_ids
        ):
            return True
        # A stop string of `n` bytes has `n` tokens at most.
        longest = max((len(s.encode()) for s in self.stop), default=0)
        if not longest:
            return False
        text = tokenizer.detokenize(sample.new_ids[-DECODE_CHUNK - longest :])
        return any(s in text for s in self.stop)

    def _completions(self, samples):
        read = self.sampler.read_completion
        return [(sample.request, read(sample.new_ids, self.stop)) for sample in samples]
