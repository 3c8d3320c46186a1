import pytest

from star_keras.tasks.latex import last_boxed, plain_latex


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{a{b}c} d}", "a{b}c"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed 5.", "5"),
        (r"\boxed 1.5", "1.5"),
        (r"\boxed-5", "-5"),
        (r"\boxed -1,000.50.", "-1,000.50"),
        (r"\boxed 1, 2", "1"),
        (r"\boxed 3/4 or \fbox .5.", ".5"),
        (r"\boxed 3/4", "3/4"),
        (r"\boxed\pi r", r"\pi"),
        (r"\boxed\frac{\sqrt{2}}{2}$", r"\frac{\sqrt{2}}{2}"),
        (r"\boxed\frac12", r"\frac12"),
        (r"\boxed\pi", r"\pi"),
        (r"\boxed{1} and \boxed{2", None),
        (r"\boxed{ }", None),
        ("no box", None),
    ],
)
def test_the_content_of_the_last_box(text, content):
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"$\left(3, \dfrac{1}{2}\right)$.", r"(3,\frac{1}{2})"),
        (r"\text{5 red apples}.", r"5\text{redapples}"),
        (r"2\pi r", r"2\pi r"),
        (r"2 \pi\,r", r"2\pi r"),
        (r"\$18.90", r"\$18.90"),
        (r"\leftarrow", r"\leftarrow"),
        (r"\begin{pmatrix}1 \\ 2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\( 1{,}000 \)", "1{,}000"),
    ],
)
def test_latex_is_written_alike(text, plain):
    assert plain_latex(text) == plain
