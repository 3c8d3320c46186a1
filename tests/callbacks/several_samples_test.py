"""Several samples a problem: what each option does to the training set."""

import collections

import pytest

from star_keras.callbacks import StarIterationCallback, SteadySteps
from star_keras.rationales import RationaleStore
from star_keras.sampling import BatchSampler, Completion, Sampler
from tests.conftest import Doubling


class FourWays(Sampler):
    """Of samples 0 to 3 the first two are right and the same, but for spaces.

    Sample 2 is right in other words, sample 3 is wrong. Problems that divide
    by four are right in every sample.
    """

    def get_config(self):
        return {"temperature": 1.0}

    def sample(self, requests, *, stop=()):
        if not requests:
            return
        names = [(request.name, request.seed[2]) for request in requests]
        if not any(request.seed[3] for request in requests):  # unhinted
            self.names = {name for name, _ in names}
        batch = []
        for i, (name, sample) in enumerate(names):
            n = int(name.removeprefix("double-"))
            text = [f" {n} + {n}.", f" {n} +  {n}.", f" Twice {n}.", " Hm."][sample]
            answer = 2 * n if sample < 3 or n % 4 == 0 else 1
            text += f" The answer is {answer}."
            batch.append((i, Completion(text=text, num_tokens=5, finish_reason="stop")))
        yield batch


@pytest.fixture
def make_star(make_model, tmp_path):
    def make(**kwargs):
        return StarIterationCallback(
            make_model(num_layers=1, hidden_dim=16),
            task=Doubling(train=8, held_out=2),
            sampler=FourWays(),
            run_dir=tmp_path / "run",
            steps=SteadySteps(1, add=0),
            batch_size=2,
            row_length=128,
            samples_per_problem=4,
            skip_eval=True,
            **kwargs,
        )

    return make


def trained(star, epochs=1):
    """The responses trained on in the last epoch, with their weights."""
    star._language_model.fit(
        star.dataset, epochs=epochs, callbacks=[star], verbose=0, shuffle=False
    )
    detokenize = star._preprocessor.tokenizer.detokenize
    return [
        (detokenize(example.response_ids[:-1].tolist()), example.weight)
        for example in star._examples
    ]


def test_all_right_samples_are_trained_on_by_default(make_star):
    rows = trained(make_star())
    assert len(rows) == 2 * 4 + 6 * 3
    assert {weight for _, weight in rows} == {1}


def test_duplicates_are_dropped_and_recorded(make_star):
    star = make_star(drop_duplicates=True)
    rows = trained(star)
    assert len(rows) == 2 * 3 + 6 * 2
    texts = [" ".join(text.split()) for text, _ in rows]
    assert len(set(texts)) == len(texts)
    stored = RationaleStore(star.run_dir / "samples").load(1)
    assert collections.Counter(r.filtered for r in stored) == {"": 24, "duplicate": 8}
    assert all(r.verdict == "correct" for r in stored if r.filtered)
    assert all(r.weight == 0 for r in stored if r.filtered)


def test_the_cap_keeps_the_first_ones(make_star):
    rows = trained(make_star(max_rationales_per_problem=2))
    assert len(rows) == 8 * 2
    assert not any("Twice" in text for text, _ in rows)


def test_cap_comes_after_duplicates(make_star):
    rows = trained(make_star(max_rationales_per_problem=2, drop_duplicates=True))
    assert len(rows) == 8 * 2
    assert sum("Twice" in text for text, _ in rows) == 8


def test_the_rationales_of_a_problem_weigh_one_together(make_star):
    rows = trained(make_star(weigh_by_problem=True))
    weights = collections.Counter(weight for _, weight in rows)
    assert weights == {1 / 4: 2 * 4, 1 / 3: 6 * 3}


def test_mastered_problems_are_sampled_less_and_still_trained_on(make_star):
    star = make_star(mastered_after=1, p_mastered=0.0)
    rows = trained(star, epochs=2)
    # Problems 0 and 4 were right in all samples of iteration 1.
    assert star.sampler.names == {f"double-{n}" for n in (1, 2, 3, 5, 6, 7)}
    assert len(rows) == 2 * 4 + 6 * 3
    assert [line.get("share_mastered") for line in star.metrics] == [0, 2 / 8]


def test_a_share_of_the_mastered_is_sampled_all_the_same(make_star):
    star = make_star(mastered_after=1, p_mastered=1.0)
    trained(star, epochs=2)
    assert star.sampler.names == {f"double-{n}" for n in range(8)}


def test_several_greedy_samples_are_refused(make_model, doubling, tmp_path):
    model = make_model(num_layers=1, hidden_dim=16)
    with pytest.raises(ValueError, match="`samples_per_problem`.*greedy.*temperature"):
        StarIterationCallback(
            model,
            doubling,
            BatchSampler(model, max_new_tokens=4),
            tmp_path,
            samples_per_problem=2,
        )
