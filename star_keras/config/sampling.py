"""Settings of what is sampled, and how."""

import dataclasses

from star_keras.config.unused import refuse_unused
from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig(Settings):
    """Which problems are sampled, and how."""

    few_shot: bool = setting(
        True, "Begin prompts with the task's worked examples.", on_resume="fixed"
    )
    direct: bool = setting(
        False,
        "Train on the known answers without rationales, a baseline. Worked examples "
        "then show answers alone.",
        on_resume="fixed",
    )
    chat: bool | None = setting(
        None,
        "Make prompts with the model's chat template. Default: yes for instruct "
        "models, whose end tokens include the template's end of a turn.",
        on_resume="fixed",
    )
    n_train_samples: int | None = setting(
        None,
        "Training problems drawn for each iteration, evenly over their classes. "
        "Default: all.",
        at_least=1,
        on_resume="fixed",
    )
    samples_per_problem: int = setting(
        1,
        "Completions sampled for each problem, with and without a hint. More than "
        "one needs a temperature above 0.",
        at_least=1,
        on_resume="fixed",
    )
    kept_per_problem: int | None = setting(
        None,
        "Quota: sample a problem again until so many distinct rationales of it can be "
        "kept. Default: no quota.",
        at_least=1,
        on_resume="fixed",
    )
    max_samples_per_problem: int = setting(
        64,
        "Most completions of a problem with a quota, without a hint; and as many again "
        "with one.",
        at_least=1,
        on_resume="fixed",
    )
    quota: str = setting(
        "uniform",
        "uniform: `kept_per_problem` for each problem; difficulty: that number times "
        "the share of failures among its first `samples_per_problem`, at least 1.",
        choices=("uniform", "difficulty"),
        on_resume="fixed",
    )
    order: str = setting(
        "given",
        "Order of the problems in an iteration: given, evenly drawn and as the task "
        "has them; shuffled, anew in each iteration; adaptive, those first that were "
        "sampled longest ago, then those solved least.",
        choices=("given", "shuffled", "adaptive"),
        on_resume="fixed",
    )
    first_classes: int | None = setting(
        None,
        "Sample only this many classes at first, e.g. the fewest digits, and grow: the "
        "next class is added when the last one is solved. Default: all.",
        at_least=1,
        on_resume="fixed",
    )
    grow_at: float = setting(
        0.9,
        "first_classes: held-out accuracy at which a class is solved.",
        above=0,
        at_most=1,
        on_resume="fixed",
    )
    sample_until_trained: bool = setting(
        False,
        "Take problems in their order until the kept rationales fill the rows of the "
        "iteration's training steps, and no more.",
        on_resume="fixed",
    )
    rationalize: bool = setting(
        True, "Sample failed problems again with a hint.", on_resume="fixed"
    )
    p_rationalization: float = setting(
        1.0,
        "Share of the failed problems that are sampled again with a hint.",
        at_least=0,
        at_most=1,
        on_resume="fixed",
    )
    mastered_after: int = setting(
        0,
        "A problem is mastered when the last `mastered_after` iterations that sampled "
        "it produced only correct unhinted rationales. 0: never. Mastered problems are "
        "sampled less; training then uses their latest rationales.",
        at_least=0,
        on_resume="fixed",
    )
    p_mastered: float = setting(
        0.25,
        "Share of the mastered problems that are sampled again.",
        at_least=0,
        at_most=1,
        on_resume="fixed",
    )
    sampler: str = setting(
        "auto",
        '"auto", "continuous", "batch", or "package.module:name" of a sampler '
        "of your own.",
        on_resume="free",
    )
    max_new_tokens: int = setting(
        256, "Longest completion, in tokens.", at_least=1, on_resume="fixed"
    )
    sample_batch_size: int = setting(
        64, "Completions sampled together.", at_least=1, on_resume="free"
    )
    temperature: float = setting(
        0.0,
        "Temperature of samples; 0 is greedy. Evaluations of a run are always greedy.",
        at_least=0,
        on_resume="fixed",
    )
    top_k: int | None = setting(
        None,
        "Sample among the `top_k` likeliest tokens. Needs a temperature above 0.",
        at_least=1,
        on_resume="fixed",
    )
    top_p: float | None = setting(
        None,
        "Sample among the likeliest tokens that together have this probability. Needs "
        "a temperature above 0.",
        above=0,
        at_most=1,
        on_resume="fixed",
    )

    min_p: float | None = setting(
        None,
        "Sample among the tokens of at least `min_p` times the highest probability. "
        "Needs a temperature above 0.",
        above=0,
        at_most=1,
        on_resume="fixed",
    )

    def check(self):
        if self.sampler not in ("auto", "continuous", "batch") and (
            ":" not in self.sampler
        ):
            raise invalid(
                "sampler",
                '"auto", "continuous", "batch", or "package.module:name"',
                self.sampler,
            )
        for other, name in (
            ("first_classes", "grow_at"),
            ("mastered_after", "p_mastered"),
            ("rationalize", "p_rationalization"),
        ):
            if not getattr(self, other):
                refuse_unused(self, [name], f"without {other}", f"Set {other}.")
        self._check_quota()
        self._check_order()
        if self.temperature == 0:
            why = "with temperature=0, which is greedy"
            remedy = "Set a temperature above 0."
            refuse_unused(self, ("top_k", "top_p", "min_p"), why, remedy)

    def _check_quota(self):
        kept, most = self.kept_per_problem, self.max_samples_per_problem
        if kept is None:
            names = "max_samples_per_problem", "quota"
            refuse_unused(self, names, "without a quota", "Set kept_per_problem.")
            return
        if self.direct:
            rule = "`None` with direct=True, which samples nothing"
            raise invalid("kept_per_problem", rule, kept, "Leave it out.")
        least = max(kept, self.samples_per_problem)
        if most < least:
            rule = f"at least {least}, with kept_per_problem={kept} and "
            rule += f"samples_per_problem={self.samples_per_problem}"
            raise invalid("max_samples_per_problem", rule, most)

    def _check_order(self):
        if self.order == "adaptive" and self.mastered_after:
            rule = "0 with order='adaptive', which samples solved problems less itself"
            raise invalid(
                "mastered_after", rule, self.mastered_after, "Leave one of them out."
            )
        for name, value in (("direct", True), ("mastered_after", 0)):
            other = getattr(self, name)
            if self.sample_until_trained and (other if value is True else other > 0):
                rule = f"`False` with {name}={other!r}"
                raise invalid("sample_until_trained", rule, True, "Leave one out.")


# What describes the sampler itself: not used when one is passed to the callback.
SAMPLER_SETTINGS = (
    "sampler",
    "max_new_tokens",
    "sample_batch_size",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
)
