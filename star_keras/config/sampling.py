"""Settings of what is sampled, and how."""

import dataclasses

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
        "Temperature of training samples; 0 is greedy. Evaluation is always greedy.",
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
        if self.temperature == 0:
            for name in ("top_k", "top_p", "min_p"):
                if getattr(self, name) is not None:
                    raise invalid(
                        name,
                        "`None` with temperature=0, which is greedy",
                        getattr(self, name),
                        "Set a temperature above 0.",
                    )


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
