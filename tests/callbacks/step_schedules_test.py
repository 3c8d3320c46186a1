from star_keras.callbacks import EpochSteps, ExponentialSteps, SteadySteps


def test_exponential_is_the_papers():
    steps = [ExponentialSteps(40, growth=1.2)(n, 7) for n in range(1, 6)]
    assert steps == [40, 48, 57, 69, 82]


def test_steady_adds():
    assert [SteadySteps(40, add=20)(n, 7) for n in (1, 2, 3)] == [40, 60, 80]


def test_epochs_follow_what_was_kept():
    schedule = EpochSteps(base_epochs=1, add_epochs=0.5)
    assert [schedule(n, 10) for n in (1, 2, 3)] == [10, 15, 20]
    assert schedule(1, 0) == 1
