"""The page in Chromium: filters, a problem opened, keyboard, phone, accessibility."""

import pytest

from star_keras.outer_loop.html_report.write_report import write_report
from tests.outer_loop.html_report.conftest import half_right, make_report_run

expect = pytest.importorskip("playwright.sync_api").expect


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
    return write_report(finished, path=tmp_path_factory.mktemp("page") / "r.html")[0]


@pytest.fixture(scope="module")
def comparison(finished, tmp_path_factory):
    def always_right(iteration, kind, number):
        return f" Twice {number} is {2 * number}. The answer is {2 * number}."

    root = tmp_path_factory.mktemp("page")
    other = make_report_run(root / "second", always_right)
    return write_report(finished, [other], root / "r.html")[0]


def choose(page, **labels):
    """The ids that filters leave, by the labels of their choices."""
    for name in ("run", "class", "iteration", "kind", "verdict", "change"):
        field = page.locator(f"#filter-{name}")
        if field.count():
            field.select_option(label=labels.get(name, "any"))
    return ids(page)


def ids(page):
    expect(page.locator(".list")).to_have_attribute("aria-busy", "false")
    return {
        text.removeprefix("double-")
        for text in page.locator(".list a").all_inner_texts()
    }


def open_problem(page, number):
    page.get_by_role("link", name=f"double-{number}", exact=True).click()
    page.wait_for_selector("#opened")


def test_filters_leave_the_problems_that_fit(open_page, report):
    page = open_page(report)
    train = {str(n) for n in range(8)}
    assert choose(page) == train | {"100", "101", "102", "103"}
    assert page.inner_text(".status") == "12 problems of 12"
    assert choose(page, **{"class": "odd"}) == {"1", "3", "5", "7", "101", "103"}
    assert choose(page, kind="with a hint") == {"0", "2", "4", "6"}
    assert choose(page, kind="with a hint", iteration="2") == {"0", "4", "6"}
    assert choose(page, kind="with a hint", verdict="correct") == {"2", "6"}
    assert choose(page, iteration="base model") == {"100", "101", "102", "103"}
    learned = "was wrong, became right"
    assert choose(page, change=learned) == {"2", "100", "101"}
    assert choose(page, change=learned, iteration="2") == {"2"}
    assert choose(page, change="was right, became wrong") == {"100"}
    # 2 is right with a hint alone in iteration 1, but not in the end.
    assert choose(page, change="right only with a hint") == {"6"}
    assert choose(page, change="right only with a hint", iteration="1") == {"2", "6"}


def count_found(page, count):
    problems = "problem" if count == 1 else "problems"
    expect(page.locator(".status")).to_have_text(f"{count} {problems} of 12")


def test_search_finds_ids_questions_and_completions(open_page, report):
    page = open_page(report)
    for text, count in (("twice 10", 4), ("DOUBLE-7", 1), ("nowhere", 0), ("6 + 6", 0)):
        page.fill("#filter-text", text)
        count_found(page, count)
    page.get_by_label("in completions too").check()
    count_found(page, 1)
    assert ids(page) == {"6"}


def test_a_problem_shows_its_life(open_page, report):
    page = open_page(report)
    open_problem(page, 2)
    headings = page.locator("#problems h4").all_inner_texts()
    assert headings == ["Iteration 1", "Iteration 2"]
    attempts = page.locator("article")
    assert [text.splitlines() for text in attempts.locator("h5").all_inner_texts()] == [
        ["without a hint incorrect"],
        ["with a hint correct"],
        ["without a hint correct"],
    ]
    first, hinted, last = attempts.all()
    assert "Not trained on: incorrect." in first.inner_text()
    assert "Trained on with weight 1." in hinted.inner_text()
    assert first.locator("mark").count() == 0
    assert hinted.locator("mark.hint").inner_text() == " (4)"
    assert first.locator(".completion .answer").inner_text() == "7"
    assert hinted.locator(".completion .answer").inner_text() == "4"
    assert (
        "Compared with iteration 1: verdict incorrect → correct; answer 7 → 4"
        in last.inner_text()
    )
    assert last.locator("del").all_inner_texts() == ["7.", "7."]
    # The second one is the answer, underlined without its full stop.
    assert last.locator("ins").all_inner_texts() == ["4.", "4", "."]
    assert "What is twice 50?" in last.locator("details").text_content()
    assert page.locator("dd").all_inner_texts() == ["What is twice 2?", "4", "even"]


def test_one_problem_has_an_address_and_neighbours(open_page, report):
    page = open_page(report)
    choose(page, kind="with a hint")
    open_problem(page, 2)
    address = page.evaluate("location.hash")
    page.get_by_role("link", name="Next problem").click()
    expect(page.locator("#opened")).to_have_text("Problem double-4")
    page.go_back()
    expect(page.locator("#opened")).to_have_text("Problem double-2")
    again = open_page(report, address)
    assert again.inner_text("#opened") == "Problem double-2"
    # The number of a problem may be another in a report that was written again.
    moved = open_page(report, address.replace("#problem=", "#problem=9"))
    assert moved.inner_text("#opened") == "Problem double-2"
    none = open_page(report, "#problem=3,train%20none")
    assert "no such problem" in none.inner_text("#app")


def test_all_of_it_works_by_keyboard(open_page, report):
    page = open_page(report)
    page.locator("#filter-change").focus()
    page.keyboard.type("was r")
    page.keyboard.press("Tab")
    count_found(page, 1)
    page.keyboard.press("Tab")  # the check box
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#opened")
    assert page.evaluate("document.activeElement.id") == "opened"
    page.keyboard.press("Escape")
    page.wait_for_selector("#opened", state="detached")
    expect(page.get_by_role("link", name="double-100")).to_be_focused()


def test_a_plot_shows_values_by_pointer_and_by_keyboard(open_page, report):
    page = open_page(report)
    chart = page.locator(".chart").first
    value = chart.locator(".value")
    assert not value.is_visible()
    chart.locator(".line-all .point").nth(1).hover(force=True)
    assert value.inner_text() == "all, iteration 1: 50.0%"
    page.mouse.move(0, 0)
    assert not value.is_visible()
    stops = chart.locator(".point[tabindex='0']")
    assert stops.count() == 1
    stops.focus()
    assert value.inner_text() == "all, iteration 2: 25.0%"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert value.inner_text() == "odd, iteration 1: 25.0%"
    assert stops.get_attribute("aria-label") == "odd, iteration 1: 25.0%"


def test_what_a_model_wrote_is_shown_and_not_run(open_page, tmp_path):
    texts = {
        1: "</script><script>alert(1)</script> The answer is <b>2</b>.",
        3: '<img src="http://127.0.0.1/x" onerror="alert(1)"> The answer is 6.',
        5: "\u202eabc\u2066 \x00\u05d0\u05d1\u05d2 The answer is 10.",
        7: "The answer is 14. " + "<i>word</i> " * 90_000 + "The answer is 14.",
    }

    def script(iteration, kind, number):
        return texts.get(number) or half_right(iteration, kind, number)

    page = open_page(write_report(make_report_run(tmp_path / "run", script))[0])
    for number in (1, 3):
        open_problem(page, number)
        assert page.locator(".completion").first.text_content() == texts[number]
        page.keyboard.press("Escape")
    open_problem(page, 5)
    shown = page.locator(".completion").first
    assert shown.text_content().startswith("U+202EabcU+2066 U+0000\u05d0\u05d1\u05d2")
    page.keyboard.press("Escape")
    open_problem(page, 7)
    shown = page.locator(".completion").first
    assert len(shown.text_content()) < 21_000
    assert shown.locator(".answer").inner_text() == "14"
    shown.get_by_role("button", name="more characters").click()
    assert shown.text_content() == texts[7]
    assert page.locator("#app b, #app i, #app img, #app script").count() == 0


def test_an_answer_is_underlined_where_it_was_read(open_page, report):
    page = open_page(report)
    for completion, answer, marker, start, found in [
        # The first one behind the last marker, or else the last one.
        ("5, so the answer is 5, as 5 + 0 = 5", "5", "answer is", 20, "5"),
        ("5, so the answer is 5, as 5 + 0 = 5", "5", "####", 34, "5"),
        ("it is 5. The answer is five.", "5", "The answer is", 6, "5"),
        ("15, not 5, and no 51", "5", "", 8, "5"),
        ("#### 1,270", "1270", "####", 5, "1,270"),
        ("0 8 2 6\n</scratch>\n8  2 6", "8 2 6", "none", 19, "8  2 6"),
        ("the answer is (B).", "b", "answer is", 15, "B"),
        ("costs $5 (five)", "$5", "", 6, "$5"),
        ("<think>3</think>3", "3", "", 16, "3"),
    ]:
        arguments = [completion, answer, marker]
        place = page.evaluate("([c, a, m]) => findAnswer(c, a, m)", arguments)
        assert place == [start, start + len(found)], completion
        assert completion[start:].startswith(found)
    for completion, answer in (("x = 15", "5"), ("none", None), ("a", " ")):
        place = page.evaluate("([c, a]) => findAnswer(c, a, '')", [completion, answer])
        assert place is None


def test_differences_join_to_both_texts(open_page, report):
    page = open_page(report)
    long = [" ".join(f"{word}{n}" for n in range(1500)) for word in "ab"]
    for before, text in [
        ("a b c", "a x c"),
        ("", "a"),
        ("a", ""),
        ("", ""),
        ("a a", "a a"),
        ("a  b\nc d", "c d a  b"),
        ("x y z", "y"),
        tuple(long),
    ]:
        pieces = page.evaluate("([a, b]) => differences(a, b)", [before, text])
        assert "".join(piece for operation, piece in pieces if operation <= 0) == before
        assert "".join(piece for operation, piece in pieces if operation >= 0) == text
    kept = page.evaluate("differences('a b c', 'a x c')")
    assert kept == [[0, "a "], [-1, "b"], [1, "x"], [0, " c"]]
    # Of another text nothing is marked.
    assert page.evaluate("markedDifferences('a b c d', 'a x c d')") is not None
    assert page.evaluate("markedDifferences('some words', 'quite others')") is None
    assert page.evaluate("markedDifferences('x'.repeat(20001), 'x')") is None


def test_runs_stand_side_by_side(open_page, comparison):
    page = open_page(comparison)
    assert page.locator(".facts thead th").all_inner_texts() == ["first", "second"]
    differ = choose(page, change="right in one run, wrong in another")
    assert differ == {"0", "4", "6", "100", "102", "103"}
    assert choose(page, run="second", verdict="incorrect") == set()
    choose(page)
    marks = page.locator(".list li", has_text="double-100").locator(".marks")
    assert marks.text_content().startswith("✗ ✓ ✗ | ✓ ✓ ✓ run first, iteration 0: inc")
    open_problem(page, 2)
    runs = page.locator(".life").all()
    assert [run.locator("h4").first.inner_text() for run in runs] == [
        "Run first",
        "Run second",
    ]
    assert [run.locator("article").count() for run in runs] == [3, 2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(open_page, comparison, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(comparison, color_scheme=scheme)
    for details in page.locator("details").all():
        details.evaluate("element => { element.open = true; }")
    assert axe.run(page).response["violations"] == []
    open_problem(page, 2)
    assert axe.run(page).response["violations"] == []


def test_a_phone_shows_it_without_scrolling_sideways(open_page, comparison):
    page = open_page(comparison, viewport={"width": 360, "height": 740})
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 360
    open_problem(page, 2)
    assert page.evaluate(width) == 360


def test_of_many_problems_one_page_is_in_the_document(open_page, tmp_path):
    path = tmp_path / "samples" / "iteration_0000"
    path.mkdir(parents=True)
    line = '{{"problem": "p{0}", "completion": "text {0}", "verdict": "correct"}}\n'
    with (path / "evaluation.jsonl").open("w") as file:
        file.writelines(line.format(number) for number in range(3000))
    page = open_page(write_report(tmp_path)[0])
    assert page.inner_text(".status") == "3,000 problems of 3,000"
    assert page.locator(".list li").count() == 50
    page.get_by_role("button", name="Next page").click()
    expect(page.locator(".list a").first).to_have_text("p50")
    assert page.locator(".list li").count() == 50
    assert "text 70" not in page.locator("main").inner_text()
    page.get_by_role("link", name="p70", exact=True).click()
    assert page.locator(".completion").inner_text() == "text 70"
