import numpy as np
import pytest

from star_keras.sampling import Scorer, ScoreRequest
from star_keras.testing import tiny_causal_lm
from tests.sampling.plain import PlainModel

# Contexts and continuations of 1 to 55 tokens.
LENGTHS = [(21, 9), (1, 20), (1, 1), (18, 7), (55, 4), (2, 40), (30, 30)]


@pytest.fixture(scope="module")
def plain(gpt_j):
    return PlainModel(gpt_j)


@pytest.fixture(scope="module")
def score_requests():
    rng = np.random.default_rng(0)
    return [
        ScoreRequest(
            context=rng.integers(1, 258, context).tolist(),
            continuation=rng.integers(1, 258, continuation).tolist(),
            name=f"request {i}",
        )
        for i, (context, continuation) in enumerate(LENGTHS)
    ]


def run(scorer, requests):
    done = {}
    for batch in scorer.score(requests):
        assert not done.keys() & dict(batch).keys()
        done.update(batch)
    return [done[i] for i in range(len(requests))]


def assert_close(scores, expected):
    assert [score.is_greedy for score in scores] == [greedy for _, greedy in expected]
    np.testing.assert_allclose(
        [score.log_likelihood for score in scores],
        [value for value, _ in expected],
        atol=1e-4,
    )


def plain_scores(plain, requests):
    return [
        plain.score([*r.context, *r.continuation], len(r.continuation))
        for r in requests
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_scores_equal_a_plain_forward_pass(gpt_j, plain, score_requests, batch_size):
    """Whatever the batch size, and the order of the requests."""
    expected = plain_scores(plain, score_requests)
    assert np.std([value for value, _ in expected]) > 1
    scorer = Scorer(gpt_j, batch_size=batch_size)
    assert_close(run(scorer, score_requests[::-1]), expected[::-1])
    assert_close(run(scorer, score_requests[2:3]), expected[2:3])


def test_greedy_continuations_are_told_from_others(gpt_j, plain):
    context = [65, 66, 67]
    likeliest = plain.greedy(context, 4)
    assert len(likeliest) == 4
    other = [*likeliest[:2], (likeliest[2] + 1) % 258, *likeliest[3:]]
    requests = [
        ScoreRequest(context=context, continuation=continuation, name="a")
        for continuation in (likeliest, other)
    ]
    first, second = run(Scorer(gpt_j, batch_size=2), requests)
    assert first.is_greedy
    assert not second.is_greedy
    assert first.log_likelihood > second.log_likelihood


def test_lora_is_merged_once_a_call(score_requests):
    model = tiny_causal_lm("gpt_j", num_layers=1)
    model.backbone.enable_lora(3)
    generator = np.random.default_rng(0)
    for variable in (v for v in model.variables if "lora" in v.path):
        variable.assign(0.3 * generator.standard_normal(variable.shape))
    scorer, calls = Scorer(model, batch_size=2), []
    score_batch = scorer.score_batch

    def recording(variables, *arrays):
        calls.append(variables)
        return score_batch(variables, *arrays)

    scorer.score_batch = recording
    expected = plain_scores(PlainModel(model), score_requests)
    assert_close(run(scorer, score_requests), expected)
    assert len(calls) > 1 and all(values is calls[0] for values in calls)
    ranks = [v.shape for v in calls[0] if 0 in v.shape]
    assert len(ranks) == sum("lora" in v.path for v in model.variables)


def test_long_contexts_lose_their_beginning(gpt_j, plain, score_requests):
    long = score_requests[4]
    ids = [*long.context, *long.continuation][-21:]
    scorer = Scorer(gpt_j, batch_size=1, max_length=20)
    expected = [plain.score(ids, len(long.continuation))]
    assert_close(run(scorer, [long]), expected)


def test_few_lengths_are_compiled(gpt_j):
    scorer = Scorer(gpt_j, batch_size=2, max_length=64)
    requests = [
        ScoreRequest(context=[9] * n, continuation=[8] * m, name="a")
        for n in range(1, 50)
        for m in (1, 2, 7)
    ]
    run(scorer, requests)
    # Inputs of 16, 32, 48 and 64 tokens.
    assert scorer.score_batch._cache_size() <= 4


def test_the_longest_input_is_that_of_the_model(gpt_j):
    assert Scorer(gpt_j).max_length == gpt_j.backbone.max_sequence_length


def test_invalid_requests_are_named_and_nothing_is_scored(gpt_j, score_requests):
    scorer = Scorer(gpt_j, max_length=4)
    for context, continuation, message in (
        ([1], [], "'b' has 0 tokens.*1 to max_length=4"),
        ([1], [1, 2, 3, 4, 5], "'b' has 5 tokens.*1 to max_length=4"),
        ([], [1], "context of 'b' is empty"),
    ):
        invalid = ScoreRequest(context=context, continuation=continuation, name="b")
        with pytest.raises(ValueError, match=message):
            next(scorer.score([score_requests[2], invalid]))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"batch_size": 0}, "`batch_size`.*at least 1.*batch_size=0"),
        ({"max_length": 0}, "`max_length`.*at least 1.*max_length=0"),
        ({"max_length": 257}, "`max_length`.*at most 256.*max_length=257"),
    ],
)
def test_invalid_arguments_are_named(gpt_j, argument, message):
    with pytest.raises(ValueError, match=message):
        Scorer(gpt_j, **argument)
