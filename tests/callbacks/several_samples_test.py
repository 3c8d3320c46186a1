"""Several samples a problem: what each option does to the training set."""

import collections

import pytest

from star_keras.callbacks import StarIterationCallback
from star_keras.sampling import BatchSampler
from star_keras.testing import Doubling, ScriptedSampler
from star_keras.utils.json_lines import read_json_lines
from tests.callbacks.conftest import examples, fit, make_config


class FourWays(ScriptedSampler):
    """Of samples 0 to 3 the first two are right and the same, but for spaces.

    Sample 2 is right in other words, sample 3 is wrong. Problems that divide
    by four are right in every sample.
    """

    def __init__(self):
        super().__init__(self.complete, batch_size=100)
        self.names = set()

    def get_config(self):
        return {"temperature": 1.0}

    def sample(self, requests, *, stop=()):
        if requests and not requests[0].seed[3]:  # unhinted
            self.names = {request.name for request in requests}
        return super().sample(requests, stop=stop)

    @staticmethod
    def complete(request):
        n, sample = int(request.name.removeprefix("double-")), request.seed[2]
        text = [f" {n} + {n}.", f" {n} +  {n}.", f" Twice {n}.", " Hm."][sample]
        answer = 2 * n if sample < 3 or n % 4 == 0 else 1
        return f"{text} The answer is {answer}."


@pytest.fixture
def make_star(make_model, tmp_path):
    def make(**settings):
        star = StarIterationCallback(
            make_model(),
            Doubling(train=8, held_out=2),
            tmp_path / "run",
            make_config(
                start_steps=1,
                add_steps=0,
                samples_per_problem=4,
                skip_eval=True,
                **settings,
            ),
            sampler=FourWays(),
        )
        return star

    return make


def trained(star, epochs=1):
    """The responses trained on in the last epoch, with their weights."""
    fit(star, epochs)
    detokenize = star.model.preprocessor.tokenizer.detokenize
    return [
        (detokenize(example.response_ids[:-1].tolist()), example.weight)
        for example in examples(star)
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
    path = star.run_dir / "samples" / "iteration_0001" / "selection.jsonl"
    lines = read_json_lines(path, set())
    reasons = collections.Counter(line["reason"] for line in lines)
    assert reasons == {"": 18, "duplicate": 8, "incorrect": 6}
    assert all(line["weight"] == 0 for line in lines if line["reason"])


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
    assert star.loop.sampler.names == {f"double-{n}" for n in (1, 2, 3, 5, 6, 7)}
    assert len(rows) == 2 * 4 + 6 * 3
    assert [line.get("share_mastered") for line in star.metrics] == [0, 2 / 8]


def test_a_share_of_the_mastered_is_sampled_all_the_same(make_star):
    star = make_star(mastered_after=1, p_mastered=1.0)
    trained(star, epochs=2)
    assert star.loop.sampler.names == {f"double-{n}" for n in range(8)}


def test_several_greedy_samples_are_refused(make_model, doubling, tmp_path):
    model = make_model()
    config = make_config(samples_per_problem=2)
    sampler = BatchSampler(model, max_new_tokens=4)
    for arguments in ({"sampler": sampler}, {}):
        with pytest.raises(ValueError, match="`samples_per_problem`.*temperature"):
            StarIterationCallback(model, doubling, tmp_path, config, **arguments)
