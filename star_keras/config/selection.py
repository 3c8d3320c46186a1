"""Settings of what is trained on."""

import dataclasses

from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionConfig(Settings):
    """Which of the samples are trained on, and how."""

    answers: str = setting(
        "known",
        "Which rationales are right: known, those with the answer of the problem; "
        "majority, those with the answer that most samples of the problem have, "
        "weighted by their share of its samples. Training problems then need no "
        "answer.",
        choices=("known", "majority"),
        on_resume="fixed",
    )
    check_working: bool = setting(
        False,
        "Keep only rationales whose steps are right. Tasks that cannot tell refuse it. "
        "The paper checks the answer alone.",
        on_resume="fixed",
    )
    check_equations: bool = setting(
        False,
        "Keep only rationales whose equations are all true and include one with the "
        "answer as its result. For tasks whose answers are numbers.",
        on_resume="fixed",
    )
    drop_duplicates: bool = setting(
        False,
        "Train on only the first of a problem's equal rationales "
        "(`Task.rationale_key`).",
        on_resume="fixed",
    )
    max_rationales_per_problem: int | None = setting(
        None,
        "Train on at most this many rationales a problem. Default: all.",
        at_least=1,
        on_resume="fixed",
    )
    drop_lowest: float = setting(
        0.0,
        "Do not train on this share of an iteration's kept rationales: those of the "
        "lowest log-probability by a verifier, which it needs.",
        at_least=0,
        below=1,
        on_resume="fixed",
    )
    weigh_by_problem: bool = setting(
        False,
        "Let the rationales of a problem weigh 1 together instead of 1 each.",
        on_resume="fixed",
    )
    copy_n: int = setting(
        0,
        "Train again on the rationales kept by this many earlier iterations.",
        at_least=0,
        on_resume="fixed",
    )
    p_show_hint_save: float = setting(
        0.0,
        "Share of the rationalizations that are trained on with their hint.",
        at_least=0,
        at_most=1,
        on_resume="fixed",
    )
    few_shot_train: bool = setting(
        False, "Begin training prompts with the worked examples too.", on_resume="fixed"
    )

    def check_verifier(self, verifier):
        """Check that `drop_lowest` and a verifier come together.

        Args:
            verifier: A model, the name of its preset, or `None`.

        Raises:
            ValueError: if there is one without the other.
        """
        share = self.drop_lowest
        if share and verifier is None:
            remedy = "Give one, see docs/methods.md."
            raise invalid("drop_lowest", "0 without a verifier", share, remedy)
        if not share and verifier is not None:
            rule = "`None` with drop_lowest=0, which drops nothing"
            raise invalid("verifier", rule, verifier, "Set drop_lowest.")
