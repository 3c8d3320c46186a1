"""The scheduler: which request waits, and which is in which slot. Pure Python."""

import dataclasses
import itertools
import threading
from collections import deque
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from star_keras.sampling.request_settings import RequestSettings


@dataclasses.dataclass(kw_only=True, eq=False)
class PartialSample:
    """A request and the tokens sampled for it so far.

    Attributes:
        request_id: Name of the request, unique among the unfinished ones.
        prompt_ids: Token ids of the prompt behind the shared prefix.
        key_data: uint32 array `(2,)`. Random key of the request.
        stop: Strings that end the completion.
        new_ids: Token ids sampled so far.
        log_probs: Their log-probabilities; `None` if the request asks for none.
        top_log_probs: The likeliest tokens at their places; `None` if not asked for.
        settings: Settings of its own.
        aborted: Whether the request was cancelled while in a slot.
    """

    request_id: Hashable
    prompt_ids: list[int]
    key_data: np.ndarray
    stop: Sequence[str] = ()
    new_ids: list[int] = dataclasses.field(default_factory=list)
    log_probs: list[float] | None = None
    top_log_probs: list[tuple] | None = None
    settings: RequestSettings = RequestSettings()
    aborted: bool = False

    def __len__(self):
        return len(self.prompt_ids) + len(self.new_ids)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Prompts that are prefilled together, and the slots that they go to.

    Further samples of its prompts come in groups of their own, with the same prompts.

    Attributes:
        prompts: Token ids of each prompt, all different.
        rows: The prompt of each new slot: `{slot: index in prompts}`.
        prefilled: Whether the prompts are those of the last group that was prefilled.
    """

    prompts: list[list[int]]
    rows: dict[int, int]
    prefilled: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """What to do before the next decode chunk, and when that may end early.

    Attributes:
        kept: Old numbers of the samples that move to slots 0, 1, 2, ... because the
            number of slots changes; `None` if all stay.
        groups: Prompts to prefill and to insert, in this order.
        enough: The decode chunk ends when so many slots have become free.
    """

    kept: list[int] | None
    groups: list[Group]
    enough: int


class Scheduler:
    """Puts waiting samples into free slots, in the order of their arrival.

    One thread calls `schedule` and `finish` in turn with the decoding. Any thread may
    call `add` and `abort` at any time. A sample waits, then has a slot, and leaves it
    by `finish` or `abort`, once.

    A group of prompts takes the same time to prefill with fewer prompts. So waiting
    samples enter when the free slots suffice for a whole group, or for all that wait.

    Args:
        num_slots: Largest number of slots, at least `few_slots` and `group_size`.
        few_slots: Number of slots for few samples.
        group_size: Most prompts that are prefilled together.

    Attributes:
        slots: A list with a `PartialSample` or `None` for each slot.

    Example:
    ```python
    scheduler = Scheduler(num_slots=2, few_slots=2, group_size=1)
    scheduler.add([PartialSample(request_id="a", prompt_ids=[5], key_data=None)])
    [group] = scheduler.schedule().groups
    group.rows  # {0: 0}
    scheduler.finish(0).request_id  # 'a'
    ```
    """

    def __init__(self, *, num_slots: int, few_slots: int, group_size: int):
        self.num_slots = num_slots
        self.few_slots = few_slots
        self.group_size = group_size
        self.slots: list[PartialSample | None] = []
        self._waiting: deque[PartialSample] = deque()
        self._further: Iterator[PartialSample] = iter(())
        self._prefilled: list[list[int]] = []
        self._lock = threading.Lock()

    def __len__(self):
        """Number of samples in the queue or in a slot; later samples count in part."""
        with self._lock:
            return self._total

    def add(self, samples: Sequence[PartialSample]):
        """Let samples wait behind all others.

        Args:
            samples: Equal prompts next to each other, to be prefilled once.
        """
        with self._lock:
            self._waiting.extend(samples)

    def feed(self, samples: Iterator[PartialSample]):
        """Queue samples behind all others; each is made shortly before its turn.

        No `add` follows.

        Args:
            samples: As for `add`.
        """
        with self._lock:
            self._further = samples
            self._fetch()

    def _fetch(self):
        """Take enough further samples to make the schedule independent of the rest."""
        missing = self.num_slots + self.group_size - len(self._waiting)
        self._waiting.extend(itertools.islice(self._further, max(missing, 0)))

    def abort(self, sample: PartialSample) -> bool:
        """Cancel a sample. Its slot becomes free at the next `schedule`.

        Returns:
            Whether it was unfinished; `finish` will not return it then.
        """
        with self._lock:
            if sample in self._waiting:
                self._waiting.remove(sample)
            elif sample in self.slots and not sample.aborted:
                sample.aborted = True
            else:
                return False
            return True

    def finish(self, slot: int) -> PartialSample | None:
        """Free the slot of a sample that has ended.

        Returns:
            The sample; `None` if it was aborted.
        """
        with self._lock:
            sample, self.slots[slot] = self.slots[slot], None
            return None if sample.aborted else sample

    def schedule(self) -> Schedule | None:
        """Free the slots of aborted samples, and fill free slots.

        Returns:
            `None` if no sample is unfinished.
        """
        with self._lock:
            for slot, sample in enumerate(self.slots):
                if sample is not None and sample.aborted:
                    self.slots[slot] = None
            self._fetch()
            if not self._total:
                return None
            kept = self._resize()
            groups = []
            while self._waiting and self._free >= self._wanted:
                groups += self._fill()
            # Without waiting samples no slot needs to become free early.
            enough = len(self.slots)
            if self._waiting:
                enough = self._wanted - self._free
            return Schedule(kept=kept, groups=groups, enough=enough)

    @property
    def _free(self):
        return self.slots.count(None)

    @property
    def _wanted(self):
        return min(self.group_size, len(self._waiting))

    @property
    def _total(self):
        return len(self._waiting) + len(self.slots) - self._free

    def _resize(self):
        """Choose the number of slots; see `Schedule.kept`."""
        total, few = self._total, self.few_slots
        count = len(self.slots)
        if total > count:
            count = few if total <= few else self.num_slots
        elif not self._waiting and total <= few:
            count = few
        if count == len(self.slots):
            return None
        kept = [slot for slot, sample in enumerate(self.slots) if sample is not None]
        free = count - len(kept)
        self.slots = [*(self.slots[slot] for slot in kept), *([None] * free)]
        return kept

    def _fill(self):
        """Groups for free slots, of which one is to be prefilled at most."""
        if rows := self._place(self._prefilled, limit=0):
            yield Group(prompts=self._prefilled, rows=rows, prefilled=True)
        prompts: list[list[int]] = []
        if rows := self._place(prompts, limit=self.group_size):
            self._prefilled = prompts
            yield Group(prompts=prompts, rows=rows)

    def _place(self, prompts, limit):
        """Move waiting samples to free slots, in their order.

        Args:
            prompts: Prompts of these samples; new ones are appended.
            limit: Longest list of prompts.

        Returns:
            `Group.rows`.
        """
        rows = {}
        numbers = {tuple(ids): number for number, ids in enumerate(prompts)}
        free = (slot for slot, sample in enumerate(self.slots) if sample is None)
        while self._waiting and (slot := next(free, None)) is not None:
            prompt_ids = self._waiting[0].prompt_ids
            key = tuple(prompt_ids)
            if key not in numbers:
                if len(prompts) >= limit:
                    break
                numbers[key] = len(prompts)
                prompts.append(prompt_ids)
            self.slots[slot] = self._waiting.popleft()
            rows[slot] = numbers[key]
        return rows
