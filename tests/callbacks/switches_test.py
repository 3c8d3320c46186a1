"""What each setting does to what is sampled and trained on."""

import keras
import numpy as np

from star_keras.testing import Doubling
from tests.callbacks.conftest import (
    examples,
    fit,
    samples,
    scripted,
    training_prompts,
)

# === Switches ===


def test_no_training_row_holds_a_hint_unless_asked(make_star, make_model):
    model = make_model()
    star = make_star(model=model)
    fit(star, 1)
    for prompt in training_prompts(star, model):
        assert "(" not in prompt
    star = make_star("shown", make_model(), p_show_hint_save=1.0)
    fit(star, 1)
    assert sum("(" in prompt for prompt in training_prompts(star, model)) == 6
    star = make_star("some", make_model(), p_show_hint_save=0.5)
    fit(star, 1)
    assert 0 < sum("(" in prompt for prompt in training_prompts(star, model)) < 6


def test_hints_are_in_the_prompts_of_rationalizations_only(make_star):
    sampler = scripted()
    star = make_star(sampler=sampler, skip_eval=True)
    fit(star, 1)
    plain, hinted = sampler.prompts[:24], sampler.prompts[24:]
    assert all(p.startswith("Q: What is twice 50?\nA: 50 + 50") for p in plain)
    assert all(p.startswith("Q: What is twice 50? (100)\nA: 50 + 50") for p in hinted)
    assert all("(" not in p for p in plain)
    assert len(hinted) == 12


def test_no_rationalization(make_star):
    star = make_star(rationalize=False)
    history = fit(star, 1).history
    assert "rationalization_accuracy" not in history
    assert history["num_rationales"] == [12]


def test_p_rationalization_tries_a_share_of_the_failed(make_star):
    sampler = scripted()
    fit(make_star(sampler=sampler, p_rationalization=0.5, skip_eval=True), 1)
    assert 0 < len(sampler.prompts) - 24 < 12


def test_no_few_shot_prompt_and_few_shot_training(make_star, make_model):
    model = make_model()
    sampler = scripted()
    star = make_star(sampler=sampler, few_shot=False)
    fit(star, 1)
    assert all(
        p.startswith("Q: What is twice") and "50?" not in p for p in sampler.prompts
    )
    star = make_star("train", model, few_shot_train=True)
    fit(star, 1)
    assert all(
        p.startswith("Q: What is twice 50?") for p in training_prompts(star, model)
    )


def test_n_train_samples_draws_anew_each_iteration(make_star):
    star = make_star(n_train_samples=10, n_eval_samples=4)
    fit(star, 2)
    drawn = [{s.problem for s in samples(star, n)} for n in (1, 2)]
    assert [len(d) for d in drawn] == [10, 10]
    assert drawn[0] != drawn[1]
    held_out = [{s.problem for s in samples(star, n, "evaluation")} for n in (0, 1, 2)]
    assert len(held_out[0]) == 4
    assert held_out[0] == held_out[1] == held_out[2]


def test_copy_n_trains_again_on_earlier_rationales(make_star):
    star = make_star(copy_n=1)
    fit(star, 3)
    assert len(examples(star)) == 36


def test_direct_trains_on_answers_without_sampling(make_star, make_model):
    sampler, model = scripted(), make_model()
    star = make_star(model=model, sampler=sampler, direct=True, skip_eval=True)
    fit(star, 1)
    assert sampler.prompts == []
    assert len(examples(star)) == 24
    ids = examples(star)[0].response_ids[:-1].tolist()
    assert model.preprocessor.tokenizer.detokenize(ids) == " The answer is 0."
    assert [s.kind for s in samples(star, 1, "direct")] == ["direct"] * 24
    assert samples(star, 1, "rationalization") is None
    assert not [name for name in star.metrics[0] if "accuracy" in name]
    star = make_star("copied", direct=True, skip_eval=True, copy_n=1)
    fit(star, 2)
    assert len(examples(star)) == 48


def test_check_working_rejects_right_answers_after_wrong_steps(make_star, make_model):
    class Strict(Doubling):
        def working_fault(self, completion, problem):
            return "has a 1" if "1" in problem.question else ""

    star = make_star(task=Strict(), check_working=True)
    history = fit(star, 1).history
    verdicts = [s.verdict for s in samples(star, 1)]
    # Odd numbers with a 1 in them: 1, 11, 13, 15, 17, 19, 21.
    assert verdicts.count("invalid_working") == 7
    assert history["train_accuracy"] == [5 / 24]
    # Evaluation looks at the answer alone.
    assert history["eval_accuracy"] == [0.5]


# === LoRA ===


def test_adapters_start_anew_each_iteration_and_nothing_else_changes(
    make_star, make_model
):
    model = make_model()
    model.backbone.enable_lora(2)
    model.lm_head.trainable = False
    model.compile(optimizer=keras.optimizers.Adam(1e-2), weighted_metrics=[])
    first = {v.path: np.array(v.value) for v in model.weights}
    starts = []

    class SeeStart(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                starts.append({v.path: np.array(v.value) for v in model.weights})

    fit(make_star(model=model), 2, [SeeStart()])
    assert len(starts) == 2
    for start in starts:
        for path, value in first.items():
            np.testing.assert_array_equal(start[path], value)
    changed = {v.path for v in model.weights if (v.value != first[v.path]).any()}
    assert changed == {v.path for v in model.trainable_variables}
    assert all("lora_kernel" in path for path in changed)
