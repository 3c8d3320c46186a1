"""Log-probabilities of all tokens of a text."""

import numpy as np
import pytest

from star_keras.sampling import TokenScorer
from tests.sampling.plain import PlainModel


@pytest.mark.parametrize("fixture", ["gpt_j", "gpt2"])
def test_scores_are_those_of_plain_logits(request, fixture, prompts):
    model = request.getfixturevalue(fixture)
    scorer, plain = TokenScorer(model), PlainModel(model, length=256)
    tokenizer = model.preprocessor.tokenizer
    # The last one has the longest row of GPT-2's positions.
    for text in [*prompts[:3], "ab", "x" * 250]:
        ids = tokenizer(text).tolist()
        log_probs, top = scorer.score(ids)
        logits = plain.logits(ids)[:-1]
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        known = logits[np.arange(len(ids) - 1), ids[1:]]
        np.testing.assert_allclose(log_probs, known, atol=1e-4)
        assert len(top) == len(log_probs)
        for row, pairs in zip(logits, top, strict=True):
            best = [value for _, value in pairs]
            np.testing.assert_allclose(best, np.sort(row)[:-6:-1], atol=1e-4)
            np.testing.assert_allclose(row[[i for i, _ in pairs]], best, atol=1e-4)
    assert scorer.score_rows._cache_size() <= 3


def test_a_single_token_has_no_score(gpt_j):
    assert TokenScorer(gpt_j).score([5]) == ([], [])
    assert TokenScorer(gpt_j).score([]) == ([], [])
