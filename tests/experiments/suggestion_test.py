"""Which candidates a suggestion compiles, with scripted answers of the compiler."""

import jax
import pytest

from experiments import plan_programs, suggestion
from experiments.common import ModelSettings
from experiments.plan import PlanSettings
from star_keras.config import OptimizerConfig, StarConfig
from star_keras.planning.arithmetic import Iteration
from star_keras.planning.suggest import Candidate

GIB = 2**30
ITERATION = Iteration(
    batch_size=4,
    sequence_length=64,
    steps=10,
    completions=8,
    prefix_length=0,
    prompt_length=8,
    max_new_tokens=8,
)


def candidate(zero, checkpointing, parts=1):
    return Candidate(
        mesh="batch:1,model:1",
        zero=zero,
        checkpointing=checkpointing,
        parts=parts,
        slots=8,
        train_memory={"weights": GIB},
        sample_memory={"weights": GIB},
        step_seconds=1.0,
        prefill_seconds=1.0,
        token_seconds=1.0,
    )


@pytest.fixture
def choose(monkeypatch):
    """Chooses among candidates; `compiled` has those that were compiled."""
    compiled = []

    def choose(ranked, fits, seconds=lambda *_: 1.0):
        """Callables take `zero`, `checkpointing` and `parts` of a training step."""
        compiled.clear()

        def estimate(model, device, settings, config, zero):
            parts = model.gradient_accumulation_steps
            key = zero, model.gradient_checkpointing, parts
            compiled.append(key)
            memory = {"needed": GIB}
            found = {
                "fits": True,
                "memory": memory,
                "work_seconds": 1.0,
                "exchange_seconds": 0.0,
                "tokens": 8,
            }
            train = {**found, "fits": fits(*key), "work_seconds": seconds(*key)}
            return {"train": train, "prefill": found, "decode": found}

        monkeypatch.setattr(plan_programs, "estimate", estimate)
        best, values = suggestion.fastest_by_compiler(
            ranked,
            jax.devices()[:1],
            PlanSettings(topology="v5e-8", suggest=True),
            ModelSettings(preset="arithmetic_base"),
            StarConfig(),
            OptimizerConfig(),
            ITERATION,
        )
        return best, values

    choose.compiled = compiled
    return choose


KEPT, KEPT_IN_PARTS = candidate(False, False), candidate(False, False, 2)
AGAIN, AGAIN_WITH_ZERO = candidate(False, True), candidate(True, True)


def test_of_each_layout_the_first_that_fits_is_compiled_and_the_fastest_wins(choose):
    ranked = [KEPT, AGAIN, AGAIN_WITH_ZERO, KEPT_IN_PARTS]
    best, values = choose(
        ranked,
        fits=lambda *_: True,
        seconds=lambda zero, *_: 1.0 if zero else 2.0,
    )
    assert choose.compiled == [(False, False, 1), (True, True, 1)]
    assert best is AGAIN_WITH_ZERO
    assert values["training step"] == (1.0, GIB)


def test_a_layout_without_room_for_all_activations_is_tried_with_checkpointing(choose):
    ranked = [KEPT, KEPT_IN_PARTS, AGAIN]
    best, _ = choose(ranked, fits=lambda zero, checkpointing, parts: checkpointing)
    assert choose.compiled == [(False, False, 1), (False, True, 1)]
    assert best is AGAIN


def test_a_suggestion_gives_up_after_four_programs_that_do_not_fit(choose):
    ranked = [KEPT, *(candidate(False, True, parts) for parts in (1, 2, 4, 1, 4))]
    ranked += [candidate(True, True, parts) for parts in (1, 2, 4)]
    with pytest.raises(ValueError, match="refused the best candidates. Use more"):
        choose(ranked, fits=lambda *_: False)
    again = [(False, True, 1), (False, True, 2), (False, True, 4), (True, True, 1)]
    assert choose.compiled == [(False, False, 1), *again]
