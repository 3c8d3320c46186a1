import keras
import numpy as np
import pytest

from star_keras import processes


def test_one_process_is_the_writer_and_waits_for_nobody():
    assert processes.is_writer()
    processes.sync("here")


@pytest.mark.parametrize("content", (None, b"", b"a line\n"))
def test_one_process_reads_for_itself(content):
    assert processes.from_writer(lambda: content) is content


def test_gathered_array_is_a_copy():
    array = np.arange(6.0)
    copy = processes.gather(array)
    copy[0] = 7
    assert array[0] == 0
    np.testing.assert_array_equal(
        processes.gather(keras.ops.convert_to_tensor(array)), array
    )


def test_whole_variables_of_one_process_are_as_they_are():
    variable = keras.Variable(np.ones(3))
    value = variable.value
    with processes.whole([variable]):
        assert variable.value is value
