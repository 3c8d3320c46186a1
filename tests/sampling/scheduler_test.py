"""Random arrivals and cancellations, against slots whose contents are followed."""

import dataclasses
import itertools
import threading

from hypothesis import given
from hypothesis import strategies as st

from star_keras.sampling.scheduler import PartialSample, Scheduler


class Simulation:
    """Decodes one token a chunk in slots that `Schedule`s alone fill and move.

    A slot holds its prompt and its tokens, as the rows of a cache do. So a completion
    shows any sample that was put into the slot of another.
    """

    def __init__(self, sizes):
        num_slots, few_slots, group_size = sizes
        self.scheduler = Scheduler(
            num_slots=num_slots, few_slots=few_slots, group_size=group_size
        )
        self.group_size = group_size
        self.contents = []
        self.entered, self.prefilled, self.done = [], [], {}
        self.samples = {}

    def add(self, lengths):
        """Samples whose completions have these lengths; three a prompt."""
        first = len(self.samples)
        new = [
            PartialSample(
                request_id=i, prompt_ids=[i // 3] * (1 + i // 3 % 2), key_data=length
            )
            for i, length in enumerate(lengths, first)
        ]
        self.samples.update({sample.request_id: sample for sample in new})
        self.scheduler.add(new)

    def step(self):
        schedule = self.scheduler.schedule()
        if schedule is None:
            return
        slots = self.scheduler.slots
        if schedule.kept is not None:
            moved = [self.contents[slot] for slot in schedule.kept]
            self.contents = moved + [None] * (len(slots) - len(moved))
        for group in schedule.groups:
            assert 1 <= len(group.prompts) <= self.group_size
            if group.prefilled:
                assert group.prompts == self.last_prompts
            else:
                self.last_prompts = list(group.prompts)
                self.prefilled += map(tuple, group.prompts)
                rows = set(group.rows.values())
                assert rows == set(range(len(group.prompts)))
            for slot, row in group.rows.items():
                self.contents[slot] = (group.prompts[row], [])
                self.entered.append(slots[slot].request_id)
        assert 1 <= schedule.enough <= len(slots)
        for slot, sample in enumerate(slots):
            if sample is not None:
                prompt, tokens = self.contents[slot]
                assert prompt == sample.prompt_ids
                tokens.append((sample.request_id, len(tokens)))

    def finish(self):
        for slot, sample in enumerate(self.scheduler.slots):
            if sample is None or len(self.contents[slot][1]) < sample.key_data:
                continue
            if (ended := self.scheduler.finish(slot)) is not None:
                assert ended is sample
                assert ended.request_id not in self.done
                self.done[ended.request_id] = self.contents[slot][1]


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)).map(
    lambda x: (max(x), x[1], x[2])
)
events = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(1, 5), max_size=12)),
        st.tuples(st.just("abort"), st.integers(0, 60)),
        st.tuples(st.just("step"), st.booleans()),
    ),
    max_size=40,
)


@given(sizes, events)
def test_nothing_is_lost_or_twice_or_late_in_any_order_of_events(sizes, events):
    simulation, aborted = Simulation(sizes), set()
    for kind, value in events:
        if kind == "add":
            simulation.add(value)
        elif kind == "step":
            simulation.step()
            if value:  # else an abort comes between the chunk and its end
                simulation.finish()
        elif (sample := simulation.samples.get(value)) is not None:
            unfinished = value not in simulation.done and value not in aborted
            assert simulation.scheduler.abort(sample) == unfinished
            aborted |= {value} if unfinished else set()
    # No starvation: the slots never idle while samples wait for longer than it takes
    # to free a whole group.
    left = sum(x.key_data + 1 for x in simulation.samples.values())
    for _ in range(left + 1):
        simulation.step()
        simulation.finish()
    assert len(simulation.scheduler) == 0
    assert simulation.scheduler.schedule() is None
    everything = set(simulation.samples)
    assert set(simulation.done) | aborted == everything
    assert not set(simulation.done) & aborted
    for i, tokens in simulation.done.items():
        assert tokens == [(i, n) for n in range(len(tokens))]
    # First come, first served.
    assert simulation.entered == sorted(simulation.entered)
    assert len(simulation.entered) == len(set(simulation.entered))


@given(sizes, st.lists(st.integers(1, 5), max_size=30), st.randoms())
def test_completions_do_not_depend_on_the_time_of_arrival(sizes, lengths, random):
    at_once, slowly = Simulation(sizes), Simulation(sizes)
    at_once.add(lengths)
    for length in lengths:
        slowly.add([length])
        for _ in range(random.randint(0, 3)):
            slowly.step()
            slowly.finish()
    for simulation in (at_once, slowly):
        for _ in range(sum(lengths) + len(lengths)):
            simulation.step()
            simulation.finish()
    expected = {i: [(i, n) for n in range(length)] for i, length in enumerate(lengths)}
    assert at_once.done == slowly.done == expected
    # The samples of a prompt arrive together, or before others.
    for simulation in (at_once, slowly):
        assert len(simulation.prefilled) == len(set(simulation.prefilled))


@given(sizes, st.lists(st.integers(1, 5), max_size=60))
def test_samples_that_are_made_late_get_the_same_schedules(sizes, lengths):
    known, late = Simulation(sizes), Simulation(sizes)
    known.add(lengths)
    made = []

    def make():
        for i, sample in known.samples.items():
            made.append(i)
            yield dataclasses.replace(sample, new_ids=[])

    late.scheduler.feed(make())
    num_slots, _, group_size = sizes
    for _ in range(sum(lengths) + len(lengths)):
        for simulation in (known, late):
            simulation.step()
        assert late.contents == known.contents
        assert late.prefilled == known.prefilled
        assert len(made) - len(late.entered) <= num_slots + group_size
        for simulation in (known, late):
            simulation.finish()
        assert (len(late.scheduler) == 0) == (len(known.scheduler) == 0)
    assert late.done == known.done
    assert len(late.done) == len(lengths)


def test_the_number_of_slots_follows_the_samples():
    simulation, counts = Simulation((8, 2, 1)), []
    for lengths in ([2], [], [2], [], [1, 1, 1, 1, 4], [], [1], []):
        simulation.add(lengths)
        simulation.step()
        counts.append(len(simulation.scheduler.slots))
        simulation.finish()
    assert counts == [2, 2, 2, 2, 8, 2, 2, 2]
    assert len(simulation.done) == 8


def test_a_cancelled_sample_gives_its_slot_to_the_next():
    simulation = Simulation((1, 1, 1))
    simulation.add([5, 1])
    simulation.step()
    assert simulation.scheduler.abort(simulation.samples[0])
    assert not simulation.scheduler.abort(simulation.samples[0])
    assert len(simulation.scheduler) == 2  # its slot is free at the next schedule
    simulation.step()
    assert simulation.entered == [0, 1]
    simulation.finish()
    assert list(simulation.done) == [1]


def test_samples_arrive_and_are_cancelled_from_many_threads():
    scheduler, per_thread, threads = (
        Scheduler(num_slots=4, few_slots=4, group_size=2),
        200,
        4,
    )
    numbers, aborted, done = itertools.count(), [], []

    def arrive():
        for _ in range(per_thread):
            sample = PartialSample(request_id=next(numbers), prompt_ids=[1], key_data=0)
            scheduler.add([sample])
            if sample.request_id % 3 == 0 and scheduler.abort(sample):
                aborted.append(sample.request_id)

    arrivals = [threading.Thread(target=arrive) for _ in range(threads)]
    for thread in arrivals:
        thread.start()
    while any(thread.is_alive() for thread in arrivals) or len(scheduler):
        if scheduler.schedule() is not None:
            for slot, sample in enumerate(scheduler.slots):
                if sample is not None and scheduler.finish(slot) is sample:
                    done.append(sample.request_id)
    assert sorted(done + aborted) == list(range(threads * per_thread))
