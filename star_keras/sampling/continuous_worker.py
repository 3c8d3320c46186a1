"""One worker of `ContinuousSampler`: its slots, and what goes in and out."""

import functools
from typing import TYPE_CHECKING

import numpy as np

from star_keras.sampling.found_prefixes import FoundPrefixes
from star_keras.sampling.log_probs import token_pairs
from star_keras.sampling.model_sampler import DECODE_CHUNK
from star_keras.sampling.request_settings import row_choices
from star_keras.sampling.ring_cache import cache_size, prompt_size
from star_keras.sampling.sampler import Completion
from star_keras.sampling.scheduler import PartialSample, Scheduler

if TYPE_CHECKING:
    from star_keras.sampling.continuous_sampler import ContinuousSampler

# Shared prefixes that are kept.
_PREFIXES = 4


class ContinuousWorker:
    """Completes samples in slots of its own.

    Args:
        sampler: The `ContinuousSampler`, which says how many slots there are.
        variables: List of arrays. Values of the variables of the model.
        prefix: The shared prefix, see `ContinuousSteps`.
        settings_by_request: See `ContinuousSampler.engine`.
        find_prefixes: See `ContinuousSampler.engine`.

    Attributes:
        scheduler: The `Scheduler` of these slots, which takes samples.
    """

    def __init__(
        self,
        sampler: "ContinuousSampler",
        variables,
        prefix: tuple,
        settings_by_request: bool = False,
        find_prefixes: bool = False,
    ):
        self.sampler = sampler
        self.variables = variables
        self.prefix = prefix
        self.settings_by_request = settings_by_request
        self.scheduler = Scheduler(
            num_slots=sampler.slots,
            few_slots=sampler.few_slots,
            group_size=sampler.group_size,
        )
        self._found = None
        if find_prefixes:
            compute = functools.partial(sampler.steps.shared_prefix, variables)
            self._found = FoundPrefixes(compute, most=_PREFIXES)
        self._cache = None
        self._write_index = np.int32(0)
        self._decoded = None
        # The last prefilled group, for further samples of its prompts.
        self._new = None

    def __len__(self):
        """Number of unfinished samples."""
        return len(self.scheduler)

    @property
    def has_work(self) -> bool:
        """Whether samples are unfinished, or a decode chunk is under way."""
        return self._decoded is not None or len(self) > 0

    def step(self) -> list[tuple[object, Completion]]:
        """Collect a decode chunk, fill the slots, and start the next chunk.

        Returns:
            Pairs `(request_id, completion)` of the samples that have ended.
        """
        ended, going_on = self._collect()
        if (schedule := self.scheduler.schedule()) is not None:
            self._decode(schedule)
        # The device works while the host reads the text.
        for sample, *new in going_on:
            sample.settings.on_tokens(sample.request_id, *new)
        return [(x.request_id, self._read(x)) for x in ended]

    def _read(self, sample):
        return self.sampler.reader.read(
            sample.new_ids,
            sample.stop,
            sample.log_probs,
            sample.settings.max_new_tokens,
            sample.top_log_probs,
        )

    def _collect(self) -> tuple[list[PartialSample], list[tuple]]:
        """Add new tokens to the samples; the samples that end leave their slots.

        Returns:
            The samples that have ended; and for those that go on and report, the
            arguments of `RequestSettings.on_tokens` behind the sample.
        """
        if self._decoded is None:
            return [], []
        self._write_index, written, *details = map(np.asarray, self._decoded)
        self._decoded = None
        has_ended = self.sampler.reader.has_ended
        ended, going_on = [], []
        for slot, new_ids in enumerate(written):
            if (sample := self.scheduler.slots[slot]) is None:
                continue
            kept = new_ids >= 0
            new, log_probs, top = new_ids[kept].tolist(), None, None
            sample.new_ids += new
            if sample.log_probs is not None:
                log_probs = details[0][slot][kept].tolist()
                sample.log_probs += log_probs
            if sample.top_log_probs is not None:
                top = token_pairs(*(x[slot][kept] for x in details[1:]))
                sample.top_log_probs += top
            settings = sample.settings
            if not has_ended(
                sample.new_ids, DECODE_CHUNK, sample.stop, settings.max_new_tokens
            ):
                if settings.on_tokens is not None and not sample.aborted:
                    going_on.append((sample, new, log_probs, top))
            elif self.scheduler.finish(slot) is sample:
                ended.append(sample)
        return ended, going_on

    def _decode(self, schedule):
        """Start a decode chunk of the slots that a `Schedule` fills."""
        steps, slots = self.sampler.steps, self.scheduler.slots
        if schedule.kept is not None and self._cache is not None:
            kept = schedule.kept or [0]
            filled = kept + kept[:1] * (len(slots) - len(kept))
            self._cache = steps.ring.compact(self._cache, np.array(filled, "int32"))
        self._resize()
        for group in schedule.groups:
            if not group.prefilled:
                self._new = self._prefill(group.prompts)
            lengths, source = self._group_arrays(group)
            self._cache = steps.ring.insert(
                self._cache, self._write_index, self._new, lengths, source
            )
        decode = steps.decode
        if any(x is not None and x.top_log_probs is not None for x in slots):
            decode = steps.decode_with_top_log_probs
        elif any(x is not None and x.log_probs is not None for x in slots):
            decode = steps.decode_with_log_probs
        self._cache, *self._decoded = decode(
            self.variables,
            self._cache,
            self._write_index,
            self.prefix,
            *self._slot_arrays(),
            row_choices(slots) if self.settings_by_request else (),
            np.int32(schedule.enough),
        )

    def _resize(self):
        """Make room for the next decode chunk."""
        slots = self.scheduler.slots
        length = cache_size(max(len(sample) for sample in slots if sample is not None))
        size = self._cache[0][0].shape[2] if self._cache else 0
        # A cache that is a little too long stays, since its samples come and go.
        if not length <= size < 1.4 * length:
            self._cache = self.sampler.steps.ring.resize(
                self._cache, self._write_index, length, len(slots)
            )
            self._write_index = np.int32(0)

    def _prefill(self, prompts):
        """A cache of prompts. A prompt's last token is left to `decode`."""
        steps, prefix, start = self.sampler.steps, self.prefix, 0
        if self._found is not None and (found := self._found.find(prompts)):
            prefix, start = found
        rests = [prompt_ids[start:] for prompt_ids in prompts]
        shape = self.sampler.group_size, prompt_size(max(map(len, rests)))
        token_ids = np.zeros(shape, "int32")
        for row, ids in zip(token_ids, rests, strict=False):
            row[: len(ids) - 1] = ids[:-1]
        new = steps.prefill(self.variables, token_ids, prefix)
        if not start:
            return new
        return steps.ring.join(*prefix, new, prompt_size(max(map(len, prompts))))

    def _group_arrays(self, group):
        """`(lengths, source)`, see `RingCache`."""
        lengths = np.zeros(self.sampler.group_size, "int32")
        lengths[: len(group.prompts)] = [len(ids) - 1 for ids in group.prompts]
        source = np.full(len(self.scheduler.slots), -1, "int32")
        for slot, row in group.rows.items():
            source[slot] = row
        return lengths, source

    def _slot_arrays(self):
        """`(token, position, count, limit, active, key_data)` of `decode`."""
        slots = self.scheduler.slots
        token, position, count, limit = np.zeros((4, len(slots)), "int32")
        key_data = np.zeros((len(slots), 2), "uint32")
        active = np.array([sample is not None for sample in slots])
        for i, sample in enumerate(slots):
            if sample is not None:
                token[i] = (sample.new_ids or sample.prompt_ids)[-1]
                count[i] = len(sample.new_ids)
                limit[i] = sample.settings.max_new_tokens or self.sampler.max_new_tokens
                position[i] = len(sample) - 1
                key_data[i] = sample.key_data
        return token, position, count, limit, active, key_data
