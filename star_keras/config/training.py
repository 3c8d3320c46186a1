"""Settings of the training steps and of the optimizer."""

import dataclasses

from star_keras.config.unused import refuse_unused
from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, setting

# What training minimizes.
OBJECTIVES = ("likelihood", "rpo")
# The settings of each schedule of training steps.
SCHEDULES = {
    "exponential": ("start_steps", "growth"),
    "steady": ("start_steps", "add_steps"),
    "epochs": ("base_epochs", "add_epochs"),
}
# Courses of the learning rate after the warm-up.
LR_SCHEDULES = ("constant", "linear", "cosine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(Settings):
    """The training steps of an iteration."""

    schedule: str = setting(
        "exponential",
        "How the number of training steps grows by iteration; exponential is the "
        "paper's.",
        choices=tuple(SCHEDULES),
        on_resume="fixed",
    )
    start_steps: int = setting(
        40,
        "exponential, steady: training steps of the first iteration.",
        at_least=1,
        on_resume="fixed",
    )
    growth: float = setting(
        1.2,
        "exponential: factor from one iteration to the next. With 10, iteration 7 has "
        "a million times the steps of iteration 1.",
        above=0,
        at_most=10,
        on_resume="fixed",
    )
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

    def check(self):
        used = SCHEDULES[self.schedule]
        others = [n for names in SCHEDULES.values() for n in names if n not in used]
        why = f"with schedule={self.schedule!r}, which has {' and '.join(used)}"
        refuse_unused(self, others, why, "Leave it out, or set another schedule.")


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
        "Parts in which the rows of a batch are computed, one after the other.",
        at_least=1,
        on_resume="free",
    )
    z_loss: float = setting(
        0.0, "Weight of PaLM's z-loss.", at_least=0, on_resume="fixed"
    )
    objective: str = setting(
        "likelihood",
        "likelihood: cross-entropy of the kept rationales; rpo: also DPO on pairs of a "
        "right and a wrong completion of a problem.",
        choices=OBJECTIVES,
        on_resume="fixed",
    )
    dpo_beta: float = setting(
        0.1,
        "rpo: factor of the log-probabilities in DPO.",
        above=0,
        on_resume="fixed",
    )
    nll_weight: float = setting(
        1.0,
        "rpo: weight of the right completion's mean cross-entropy, beside DPO.",
        at_least=0,
        on_resume="fixed",
    )
    gradient_checkpointing: bool = setting(
        False,
        "Compute activations again in the backward pass to save memory.",
        on_resume="free",
    )
    lora_rank: int | None = setting(
        None,
        "Train low-rank adapters of the attention alone, of this rank.",
        at_least=1,
        on_resume="fixed",
    )

    def check(self):
        if self.lr_schedule == "constant":
            why = "with lr_schedule='constant'"
            remedy = "Set another lr_schedule."
            refuse_unused(self, ("decay_steps", "hold_steps"), why, remedy)
        elif self.decay_steps == 0:
            rule = f"at least 1 with lr_schedule={self.lr_schedule!r}"
            raise invalid("decay_steps", rule, self.decay_steps)
        is_likelihood = self.objective == "likelihood"
        unused = ("dpo_beta", "nll_weight") if is_likelihood else ("z_loss",)
        why = f"with objective={self.objective!r}, which does not use it"
        refuse_unused(self, unused, why, "Leave it out.")
