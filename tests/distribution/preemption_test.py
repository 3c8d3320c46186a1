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


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_first_ctrl_c_is_a_notice_and_the_second_ends_at_once(capfd):
    # A shell's background job ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    notice = PreemptionNotice()
    notice.start()
    try:
        interrupt()
        assert notice.received() and notice.by == "Ctrl-C"
        assert "Once more ends the program at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    finally:
        notice.stop()
        signal.signal(signal.SIGINT, before)
    assert Preempted(notice.by).code == 130


def test_a_program_in_the_background_goes_on_ignoring_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        notice = PreemptionNotice()
        notice.start()
        interrupt()
        assert not notice.received()
        notice.stop()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
