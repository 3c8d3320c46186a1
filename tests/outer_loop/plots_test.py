import pytest
from matplotlib import image

from star_keras.outer_loop.plots import plot_over_k, save_plots

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


@pytest.mark.parametrize("names", [("pass", "maj"), ("pass", "maj", "best")])
def test_metrics_over_k_are_lines_of_their_own(names, tmp_path):
    ends = {"pass": 0.9, "maj": 0.5, "best": 0.7}
    metrics = {"accuracy": 0.3}
    for name in names:
        metrics |= {f"{name}@1": 0.3, f"{name}@2": ends[name]}
    plot_over_k(metrics, tmp_path / "by_k.png")
    plot = (image.imread(tmp_path / "by_k.png")[:, :700, :3] * 255).round()
    colors = {"pass": (31, 119, 180), "maj": (255, 127, 14), "best": (44, 160, 44)}
    tops = {}
    for name, color in colors.items():
        rows, _ = (plot == color).all(2).nonzero()
        if name in names:
            tops[name] = rows.min()
        else:
            assert not len(rows)
    assert sorted(tops, key=tops.get) == sorted(names, key=ends.get, reverse=True)
