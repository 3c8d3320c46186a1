"""All settings of a run, each said once.

    python -m star_keras.config > docs/configuration.md

writes the reference page. This module imports no Keras, so that scripts can
check their flags at once.
"""

import dataclasses

from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, group, reference_table, setting

# Courses of the learning rate after the warm-up.
LR_SCHEDULES = ("constant", "linear", "cosine")


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
        '"auto", "continuous" (GPT-J), "batch", or "package.module:name" of a sampler '
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
            for name in ("top_k", "top_p"):
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
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionConfig(Settings):
    """Which of the samples are trained on, and how."""

    check_working: bool = setting(
        False,
        "Keep only rationales whose steps are right, for tasks that can tell. The "
        "paper checks the answer alone.",
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(Settings):
    """The training steps of an iteration."""

    schedule: str = setting(
        "exponential",
        "How the number of training steps grows by iteration; exponential is the "
        "paper's.",
        choices=("exponential", "steady", "epochs"),
        on_resume="fixed",
    )
    start_steps: int = setting(
        40,
        "exponential, steady: training steps of the first iteration.",
        at_least=1,
        on_resume="fixed",
    )
    growth: float = setting(
        1.2, "exponential: factor from one iteration to the next.", above=0,
        on_resume="fixed",
    )  # fmt: skip
    add_steps: int = setting(
        20, "steady: further steps each iteration.", at_least=0, on_resume="fixed"
    )
    base_epochs: float = setting(
        1.0,
        "epochs: passes over the training set in the first iteration.",
        above=0,
        on_resume="fixed",
    )
    add_epochs: float = setting(
        0.2, "epochs: further passes each iteration.", at_least=0, on_resume="fixed"
    )
    batch_size: int = setting(8, "Rows a training step.", at_least=1, on_resume="fixed")
    sequence_length: int = setting(
        1024,
        "Tokens a row. Models that take `segment_ids` get several examples packed "
        "into a row.",
        at_least=1,
        on_resume="fixed",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """The run as a whole."""

    seed: int = setting(
        0, "Seed of draws, orders and samples.", at_least=0, on_resume="fixed"
    )
    skip_eval: bool = setting(
        False, "Do not evaluate on held-out problems.", on_resume="fixed"
    )
    n_eval_samples: int | None = setting(
        None,
        "Held-out problems to evaluate on. Default: all.",
        at_least=1,
        on_resume="fixed",
    )
    on_empty: str = setting(
        "continue",
        "After an iteration without anything to train on, whose model is the base "
        "model: go on or stop.",
        choices=("continue", "stop"),
        on_resume="free",
    )
    keep_weights: int = setting(
        1, "Iterations whose weights stay on disk.", at_least=1, on_resume="free"
    )
    checkpoint_steps: int = setting(
        500,
        "Training steps between two checkpoints within an iteration. The last two "
        "checkpoints stay on disk.",
        at_least=1,
        on_resume="free",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StarConfig(Settings):
    """Everything that `StarIterationCallback` can be told.

    Example:
    ```python
    config = StarConfig(
        sampling=SamplingConfig(few_shot=False, max_new_tokens=112),
        training=TrainingConfig(batch_size=16, sequence_length=128),
    )
    ```
    """

    sampling: SamplingConfig = group(SamplingConfig)
    selection: SelectionConfig = group(SelectionConfig)
    training: TrainingConfig = group(TrainingConfig)
    run: RunConfig = group(RunConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Settings):
    """What `star_keras.training.compile_model` compiles a model with.

    The defaults are those of the paper. A resumed run compares the optimizer
    itself, however it was made.
    """

    learning_rate: float = setting(
        1e-6, "Learning rate of Adam after the warm-up.", above=0, on_resume="fixed"
    )
    warmup_steps: int = setting(
        100,
        "Steps until the learning rate is reached, in each iteration.",
        at_least=0,
        on_resume="fixed",
    )
    lr_schedule: str = setting(
        "constant",
        "Course of the learning rate after the warm-up.",
        choices=LR_SCHEDULES,
        on_resume="fixed",
    )
    hold_steps: int = setting(
        0,
        "linear, cosine: steps at the full learning rate before it falls.",
        at_least=0,
        on_resume="fixed",
    )
    decay_steps: int = setting(
        0,
        "linear, cosine: steps in which the learning rate falls to a tenth.",
        at_least=0,
        on_resume="fixed",
    )
    beta_2: float = setting(
        0.999,
        "Decay of Adam's second moment.",
        above=0,
        below=1,
        on_resume="fixed",
    )
    clipnorm: float = setting(
        1.0,
        "Global norm to which gradients are clipped.",
        above=0,
        on_resume="fixed",
    )
    gradient_accumulation_steps: int = setting(
        1,
        "Parts in which the rows of a batch are computed, one after the other (GPT-J).",
        at_least=1,
        on_resume="free",
    )
    z_loss: float = setting(
        0.0, "Weight of PaLM's z-loss (GPT-J).", at_least=0, on_resume="fixed"
    )
    gradient_checkpointing: bool = setting(
        False,
        "Compute activations again in the backward pass to save memory (GPT-J).",
        on_resume="free",
    )
    lora_rank: int | None = setting(
        None,
        "Train low-rank adapters of the attention alone, of this rank.",
        at_least=1,
        on_resume="fixed",
    )

    def check(self):
        decays = self.lr_schedule != "constant"
        if decays and self.decay_steps == 0:
            raise invalid(
                "decay_steps",
                f"at least 1 with lr_schedule={self.lr_schedule!r}",
                self.decay_steps,
            )
        for name in ("decay_steps", "hold_steps"):
            if not decays and getattr(self, name):
                raise invalid(
                    name, "0 with lr_schedule='constant'", getattr(self, name)
                )


_PARTS = (
    SamplingConfig,
    SelectionConfig,
    TrainingConfig,
    RunConfig,
    OptimizerConfig,
)


def reference() -> str:
    """The reference page of all settings, in Markdown."""
    parts = [
        "# Configuration",
        "Every setting has the same name as a field of its class and as a flag of "
        "`python -m experiments.star`: `few_shot` is `--few_shot` or `--nofew_shot`. "
        '"On resume" says whether a run that goes on may have another value ("free") '
        'or is refused with one ("fixed"). This page is made by '
        "`python -m star_keras.config`.",
    ]
    for part in _PARTS:
        summary = part.__doc__.strip().splitlines()[0]
        parts += [f"## {part.__name__}", summary, reference_table(part)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
