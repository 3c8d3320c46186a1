import html.parser
import re
import shutil
import tracemalloc

import pytest

from star_keras.outer_loop.html_report.write_report import update_report, write_report
from star_keras.outer_loop.prompts import PromptBuilder
from tests.outer_loop.html_report.conftest import TASK, make_report_run

EVIL = '</script><img src=x onerror="alert(1)">\u202e'
PROBLEMS = {split: TASK.problems(split) for split in ("train", "eval")}


def evil(iteration, kind, number):
    return f" {EVIL} The answer is {EVIL}."


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text of each script."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.scripts, self.text = [], [], ""
        self._in_script = False
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.text += data


@pytest.fixture
def path(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_the_report_is_one_file_without_addresses(path):
    written, faults = write_report(path)
    assert (written, faults) == (path / "report.html", [])
    page = Page(written)
    loading = {"src", "srcset", "data", "action", "poster", "background"}
    assert not any(loading & attributes.keys() for _, attributes in page.tags)
    links = [attributes["href"] for _, attributes in page.tags if "href" in attributes]
    assert links and all(link.startswith("#") for link in links)
    content = written.read_text()
    assert "http://" not in content and "https://" not in content
    assert list(path.glob("*.partial")) == []


def test_texts_of_models_and_names_are_never_tags(tmp_path):
    settings = {"task": {"task": EVIL}, "model": {"dtype": EVIL}}
    run = make_report_run(tmp_path / "<b>run", evil, **settings)
    written, _ = write_report(run)
    page = Page(written)
    assert not {"img", "b"} & {tag for tag, _ in page.tags}
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert f"dtype {EVIL}" not in page.text
    assert EVIL in page.text and "<b>run" in page.text
    # Of the scripts one runs, and the policy of the page allows no other.
    types = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    assert types.count(None) == 1
    assert set(types) == {None, "application/json", "text/plain"}
    (policy,) = (a["content"] for tag, a in page.tags if "http-equiv" in a)
    assert re.search(r"script-src 'sha256-[\w+/]+='", policy)
    assert "unsafe" not in policy and policy.startswith("default-src 'none'")


def test_the_same_run_gives_the_same_report(path):
    first = write_report(path)[0].read_bytes()
    assert write_report(path)[0].read_bytes() == first


def test_memory_does_not_grow_with_the_texts(tmp_path):
    def long(iteration, kind, number):
        return "word " * 200_000

    run = make_report_run(tmp_path / "run", long)
    size = sum(p.stat().st_size for p in (run / "samples").rglob("*.jsonl"))
    tracemalloc.start()
    write_report(run)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 40_000_000
    # A line, and its copies: of the text, as JSON, as a chunk, compressed.
    assert peak < 12_000_000


def test_of_large_runs_a_share_is_shown_and_said(path):
    size = sum(p.stat().st_size for p in path.rglob("samples/*/*.jsonl"))
    page = Page(write_report(path, most_bytes=size // 4)[0])
    assert "of the problems are shown here" in page.text
    page = Page(write_report(path, most_bytes=size)[0])
    assert "of the problems are shown here" not in page.text


def test_damage_is_named_and_the_rest_is_shown(path):
    with (path / "samples/iteration_0002/rationale.jsonl").open("a") as file:
        file.write("{broken <b>\n")
    written, (fault,) = write_report(path)
    assert "rationale.jsonl, line 9: not valid JSON" in fault
    page = Page(written)
    assert "rationale.jsonl, line 9: not valid JSON" in page.text
    assert "{broken <b>" in page.text
    assert "Held-out accuracy" in page.text


def test_a_run_under_way_has_a_report(path):
    lines = (path / "manifest.jsonl").read_text().splitlines(keepends=True)
    (path / "manifest.jsonl").write_text("".join(lines[:9]))
    (path / "samples/iteration_0002/selection.jsonl").unlink()
    page = Page(write_report(path)[0])
    assert "1 iteration trained, iteration 2 under way" in page.text


def test_an_empty_run_has_a_report(tmp_path):
    (tmp_path / "manifest.jsonl").touch()
    written, faults = write_report(tmp_path)
    assert "not evaluated" in Page(written).text
    assert len(faults) == 1 and "problems.jsonl is missing" in faults[0]


def test_runs_of_one_name_are_told_apart_by_their_paths(path, tmp_path):
    other = shutil.copytree(path, tmp_path / "other" / "run")
    text = Page(write_report(path, [other], tmp_path / "both.html")[0]).text
    assert f"STaR: {path} and {other}" in text


def test_a_run_is_not_compared_with_itself(path):
    with pytest.raises(ValueError, match="`compare`. Expected other directories"):
        write_report(path, [f"{path}/"])


# === Within a run ===


def update(path):
    update_report(path, PROBLEMS, PromptBuilder(TASK), hinted=True)


def test_a_run_writes_report_and_texts(path):
    (path / "problems.jsonl").unlink()
    update(path)
    assert (path / "report.html").exists()
    assert (path / "problems.jsonl").exists()


def test_a_report_that_cannot_be_written_is_a_warning(path):
    (path / "report.html").mkdir()
    with pytest.warns(UserWarning) as found:
        update(path)
    text = str(found[0].message)
    assert f"{path / 'report.html'} was not written" in text
    assert "The run goes on." in text
    assert f"`python -m experiments.report --run_dir={path}`" in text


def test_a_damaged_sample_is_a_warning(path):
    with (path / "samples/iteration_0002/evaluation.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.warns(UserWarning, match=r"evaluation.jsonl, line 5: not valid JSON"):
        update(path)
    assert (path / "report.html").exists()
