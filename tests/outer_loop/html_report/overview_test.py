import pytest

from star_keras.outer_loop.html_report import overview
from star_keras.outer_loop.html_report.charts import HEIGHT, WIDTH, make_chart
from star_keras.outer_loop.html_report.facts import facts
from star_keras.storage.run_files import RunFiles
from tests.outer_loop.html_report.conftest import make_report_run

CONFIG = {
    "sampling": {"direct": False, "rationalize": False},
    "task": {"task": "doubling", "problems_crc32": 1},
    "model": {
        "base_weights_crc32": 255,
        "dtype": "bfloat16",
        "optimizer": {
            "class_name": "Adam",
            "config": {"learning_rate": {"config": {"learning_rate": 1e-6}}},
        },
    },
}


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "second"
    return make_report_run(path, iterations=1, **CONFIG)


@pytest.fixture
def runs(finished, second):
    return RunFiles(finished), RunFiles(second)


def as_dict(table):
    return {
        row[0]: dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows
    }


def test_a_run_is_told_in_five_lines(runs):
    counts = {(0, 1, "rationale"): {"samples": 3000, "tokens": 12000}}
    table = facts(runs[1:], counts)
    assert table.columns == ["", "second"]
    assert table.rows == [
        [
            "Task",
            "doubling, 3,000 completions of training problems an iteration, without "
            "rationalization",
        ],
        ["Base model", "weights 000000ff, bfloat16, Adam, learning rate 1e-06"],
        ["Progress", "1 iteration trained"],
        [
            "Held-out accuracy",
            "50.0% after iteration 1 (95% interval 10.0% to 90.0%); base model 0.0%",
        ],
        ["Time and tokens", "1 min 12 s; 12,000 tokens sampled"],
    ]


def test_a_run_without_settings_is_told_too(runs):
    run = runs[0]
    run.config = {"sampling": 3, "model": None}
    assert as_dict(facts([run], {}))["Base model"] == {"first": "unknown"}


def test_accuracies_of_two_runs_stand_side_by_side(runs):
    held_out, training, hinted = overview.accuracy_tables(runs)
    assert held_out.is_open and not training.is_open and not hinted.is_open
    assert list(as_dict(held_out)) == [
        *("0, first", "0, second", "1, first", "1, second", "2, first"),
    ]
    assert as_dict(held_out)["1, second"] == {
        "all": "50.0%",
        "even": "50.0%",
        "odd": "25.0%",
        "95% interval": "10.0% to 90.0%",
    }


def test_reasons_and_times_have_columns(runs):
    assert as_dict(overview.kept_table(runs[:1]))["2"] == {
        "kept": "5",
        "problems kept unaided": "50.0%",
        "problems rationalized": "25.0%",
        "training examples": "5",
        "not kept: incorrect": "6",
    }
    counts = {(0, 2, "rationale"): {"tokens": 1234}}
    times = as_dict(overview.time_table(runs[:1], counts))
    assert times["2"]["sampling"] == "1 min 0 s"
    assert times["2"]["tokens without a hint"] == "1,234"
    assert times["0"]["sampling"] == ""


def test_metrics_of_other_versions_are_shown(runs):
    runs[0].history[1]["quite_new"] = 0.25
    assert as_dict(overview.metrics_table(runs[:1]))["1"]["quite_new"] == "0.25"


def test_of_two_runs_the_settings_that_differ_are_shown(runs):
    first = overview.settings_table(runs[1:])
    assert as_dict(first)["task.task"] == {"second": "doubling"}
    assert as_dict(first)["run.seed"] == {"second": "1"}
    both = as_dict(overview.settings_table(runs))
    assert both["task.task"] == {"first": "", "second": "doubling"}
    assert "run.seed" not in both


def test_a_run_has_a_line_for_each_class_and_two_runs_one_each(runs):
    held_out, training = overview.accuracy_charts(runs[:1])
    assert [line.label for line in held_out.lines] == ["even", "odd", "all"]
    assert [p[2:] for p in held_out.lines[2].points] == [(0, 0.0), (1, 0.5), (2, 0.25)]
    assert [p[2] for p in training.lines[2].points] == [1, 2]
    charts = overview.accuracy_charts(runs)
    assert [chart.title for chart in charts] == [
        f"Held-out accuracy: {name}" for name in ("all", "even", "odd")
    ]
    assert [line.label for line in charts[0].lines] == ["first", "second"]


def test_points_lie_within_the_chart_in_their_order():
    chart = make_chart("title", {"a": {3: 0.0, 40: 1.0, 5: 0.5}})
    (line,) = chart.lines
    (x0, y0, *_), (x1, y1, *_), (x2, y2, *_) = line.points
    assert 0 < x0 < x1 < x2 < WIDTH
    assert HEIGHT > y0 > y1 > y2 > 0
    assert line.path == f"{x0},{y0} {x1},{y1} {x2},{y2}"
    assert len(chart.x_ticks) <= 10
    assert chart.x_ticks[0] == (x0, 3)
    assert chart.y_ticks[0] == (y0, 0)


def test_one_iteration_is_a_chart_and_none_is_not():
    (line,) = make_chart("title", {"a": {0: 0.5}, "b": {}}).lines
    assert 0 < line.points[0][0] < WIDTH
    assert make_chart("title", {"a": {}}) is None
