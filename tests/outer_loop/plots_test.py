from matplotlib import image

from star_keras.outer_loop.plots import save_plots

METRICS = [
    {"iteration": 0, "eval_accuracy": 0.2, "eval_accuracy/1_digits": 0.4},
    {"iteration": 1, "share_kept": 0.3, "share_rationalized": 0.1},
    {"iteration": 2, "share_kept": 0.7, "eval_accuracy": 0.8},
]


def test_accuracy_rises_and_share_rationalized_is_a_point(tmp_path):
    save_plots(METRICS, tmp_path)
    accuracy = image.imread(tmp_path / "accuracy.png")
    assert accuracy.shape == (600, 960, 4)
    # The thick black line of all classes: from the lower left to the upper right.
    rows, columns = (accuracy[100:500, 150:, :3] < 0.02).all(2).nonzero()
    left, right = columns.argmin(), columns.argmax()
    assert rows[left] > rows[right] + 150
    assert columns[right] > columns[left] + 600
    assert (tmp_path / "kept.png").exists()


def test_a_plot_without_points_is_not_drawn(tmp_path):
    save_plots(METRICS[:1], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["accuracy.png"]
