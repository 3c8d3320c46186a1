import keras
import pytest
from etils import epath

from star_keras.storage.iteration_names import iteration_name
from star_keras.storage.run_checkpoints import RunCheckpoints


@pytest.fixture
def checkpoints(tmp_path):
    return RunCheckpoints(epath.Path(tmp_path))


@pytest.fixture
def variables():
    return [keras.Variable([1.0, 2.0])]


def test_the_last_weights_stay(checkpoints, variables):
    checkpoints.save_weights(9, variables)  # of a later iteration, by whatever cut
    copy = "iteration_0003_copy"  # by the user
    checkpoints.weights.save(copy, variables)
    for iteration in (1, 2, 3):
        variables[0].assign([iteration, iteration])
        checkpoints.save_weights(iteration, variables)
        checkpoints.prune_weights(iteration, keep=2)
    kept = [iteration_name(2), iteration_name(3), copy, iteration_name(9)]
    assert checkpoints.weights.names() == kept
    checkpoints.restore_weights(2, variables)
    assert list(variables[0].value) == [2, 2]


def test_a_state_of_another_process_is_not_taken(tmp_path, checkpoints, variables):
    """One that still writes after its directory was removed and made again."""
    checkpoints.start_training(is_packed=True)
    other = RunCheckpoints(epath.Path(tmp_path))
    other.save_training(4, 9, variables)
    other.training.wait()
    assert checkpoints.restore_training(4, variables) == 0
    assert checkpoints.training.names() == []
    other.save_training(4, 9, variables)
    other.training.wait()
    checkpoints.save_training(4, 2, variables)
    assert checkpoints.restore_training(4, variables) == 2


def test_states_that_were_there_are_of_this_run_if_its_training_set_is_recorded(
    tmp_path, checkpoints, variables
):
    checkpoints.save_training(4, 2, variables)
    checkpoints.training.wait()
    again = RunCheckpoints(epath.Path(tmp_path))
    again.start_training(is_packed=True)
    assert again.restore_training(4, variables) == 2
    again.start_training(is_packed=False)
    assert again.training.names() == []


def test_the_last_two_states_of_a_training_stay(checkpoints, variables):
    for step in (2, 4, 6):
        variables[0].assign([step, step])
        checkpoints.save_training(4, step, variables)
    variables[0].assign([0.0, 0.0])
    assert checkpoints.restore_training(3, variables) == 0
    assert checkpoints.restore_training(4, variables) == 6
    assert list(variables[0].value) == [6, 6]
    assert len(checkpoints.training.names()) == 2
    checkpoints.prune_training()
    assert checkpoints.restore_training(4, variables) == 0
