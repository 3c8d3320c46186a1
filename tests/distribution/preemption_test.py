import os
import signal

import pytest

from star_keras.distribution.preemption import Preempted, PreemptionNotice


class EarlierError(Exception):
    pass


@pytest.fixture
def earlier_handler():
    """What the program does at SIGTERM without us."""

    def handle(number, frame):
        raise EarlierError

    before = signal.signal(signal.SIGTERM, handle)
    yield handle
    signal.signal(signal.SIGTERM, before)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_first_signal_is_a_notice_and_the_second_is_not(earlier_handler):
    notice = PreemptionNotice()
    notice.start()
    assert not notice.received()
    terminate()
    assert notice.received()
    with pytest.raises(EarlierError):
        terminate()
    assert signal.getsignal(signal.SIGTERM) is earlier_handler


def test_start_after_an_error_keeps_the_handler_that_was_there(earlier_handler):
    notice = PreemptionNotice()
    notice.start()
    notice.start()
    notice.stop()
    assert signal.getsignal(signal.SIGTERM) is earlier_handler


def test_handler_is_put_back_and_the_next_start_is_a_new_one(earlier_handler):
    notice = PreemptionNotice()
    notice.start()
    terminate()
    notice.stop()
    assert signal.getsignal(signal.SIGTERM) is earlier_handler
    notice.start()
    assert not notice.received()
    notice.stop()


def test_preempted_ends_a_program_with_its_own_code():
    assert Preempted().code == 75
