import keras
import numpy as np

from star_keras.distribution import processes


def test_one_process_alone_is_the_writer():
    assert processes.is_writer()


def test_gathered_array_of_one_process_is_all_of_it():
    array = np.arange(6.0)
    found = processes.gather(keras.ops.convert_to_tensor(array))
    np.testing.assert_array_equal(found, array)


def test_whole_variables_of_one_process_keep_their_values():
    variable = keras.Variable(np.ones(3))
    value = variable.value
    with processes.whole([variable]):
        assert variable.value is value
