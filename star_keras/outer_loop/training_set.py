"""From the kept samples to the tokenized examples of an iteration."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from star_keras.config import StarConfig, TrainingConfig
from star_keras.outer_loop.pairs import pair_order
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.selection import reject
from star_keras.outer_loop.step_schedules import checked_steps, scheduled_steps
from star_keras.storage.records import GradedSample, Selection
from star_keras.storage.stored_samples import KeptSamples
from star_keras.tasks.task import Problem
from star_keras.training.dataset import count_trained_tokens
from star_keras.training.examples import TrainingExample, response_tokens
from star_keras.training.packing import pack
from star_keras.training.stored_examples import (
    StoredExamples,
    example_lengths,
    tokenize_stream,
)
from star_keras.utils.errors import invalid


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """The training set of an iteration.

    Attributes:
        examples: The tokenized examples, `StoredExamples` if there are any.
        steps: The number of training steps.
        tokens_per_step: Mean number of tokens of a batch without its padding.
        num_tokens: Tokens of the batches of all steps, without padding.
    """

    examples: Sequence[TrainingExample] = ()
    steps: int = 1
    tokens_per_step: float = 0.0
    num_tokens: int = 0


def reject_too_long(
    phases: Sequence[Sequence[GradedSample]],
    selections: Sequence[Selection],
    problems: Mapping[str, Problem],
    prompts: PromptBuilder,
    preprocessor,
    config: StarConfig,
    *,
    paired: bool = False,
) -> tuple[Sequence[Selection], StoredExamples]:
    """The decisions on the samples of an iteration, by the lengths of their examples.

    Args:
        phases: The samples.
        selections: The decisions before. An example, or a pair of them, that is longer
            than a row gets the reason `"too_long"`. It still counts in the limits and
            quotas of its problem.
        problems: The problems by their ids.
        prompts: Makes the training prompts.
        preprocessor: A `keras_hub.models.CausalLMPreprocessor`.
        config: All settings.
        paired: Whether they are pairs, see `star_keras.outer_loop.pairs`.

    Returns:
        The decisions, `selections` itself if nothing is too long; and the examples of
        `selections`.

    Raises:
        ValueError: if all of them are too long.
    """
    kept = KeptSamples.of(phases, selections)
    examples = StoredExamples(_tokenized(kept, problems, prompts, preprocessor))
    order = pair_order(kept.selections) if paired else np.arange(len(examples))
    totals = _row_parts(examples.lengths[order], paired).sum(axis=1)
    length = config.training.sequence_length
    is_long = totals > length
    if len(totals) and is_long.all():
        name = "pairs" if paired else "rationales"
        rule = f"at least {totals.min()}, the tokens of the shortest of {len(totals)} "
        remedy = "Use longer rows, in a new run_dir."
        raise invalid("sequence_length", f"{rule}{name}", length, remedy)
    keys = np.fromiter((x.key for x in kept.selections), object)
    rejected = _row_parts(keys[order], paired)[is_long]
    keys = set(rejected.flat)
    return reject(selections, keys, "too_long", config.selection), examples


def _tokenized(kept, problems, prompts, preprocessor):
    """The examples of kept samples, one by one."""
    texts = (
        (
            prompts.build(problems[sample.problem], selection.show_hint),
            # A stop string after a blank line leaves that line behind.
            sample.completion.rstrip(),
            selection.weight,
        )
        for sample, selection in kept
    )
    tokens = response_tokens(preprocessor.tokenizer, prompts.chat)
    return tokenize_stream(preprocessor, texts, **tokens)


def _row_parts(values, paired):
    """Values of examples as `(parts, 1)`, or of pairs as `(parts, 2)`."""
    return np.reshape(values, (-1, 2 if paired else 1))


def make_training_set(
    iteration: int,
    kept: KeptSamples,
    problems: Mapping[str, Problem],
    prompts: PromptBuilder,
    preprocessor,
    config: TrainingConfig,
    *,
    seed: int,
    packed: bool,
    paired: bool = False,
    steps: Callable[[int, int], int] | None = None,
    examples: StoredExamples | None = None,
) -> TrainingSet:
    """Tokenize the kept samples, and count rows and training steps.

    Args:
        iteration: The iteration, from 1.
        kept: The samples that are trained on.
        problems: The problems by their ids.
        prompts: Makes the training prompts.
        preprocessor: A `keras_hub.models.CausalLMPreprocessor`.
        config: Sizes and schedule.
        seed: The seed of the run.
        packed: Whether a row holds several examples.
        paired: Whether they are pairs, see `star_keras.outer_loop.pairs`.
        steps: See `checked_steps`. Defaults to the schedule of `config`.
        examples: Those of `kept`, if they are tokenized already.

    The examples must fit into a row, see `reject_too_long`.
    """
    if examples is None:
        examples = StoredExamples(_tokenized(kept, problems, prompts, preprocessor))
    if not len(examples):
        return TrainingSet()
    if paired:
        examples.reorder(pair_order(kept.selections))
    lengths = _row_parts(example_lengths(examples), paired).sum(axis=1).tolist()
    rows = len(pack(lengths, config.sequence_length) if packed else lengths)
    per_pass = math.ceil(rows / config.batch_size)
    if steps is None:
        num_steps = scheduled_steps(config, iteration, per_pass)
    else:
        num_steps = checked_steps(steps, iteration, per_pass)
    return TrainingSet(
        examples=examples,
        steps=num_steps,
        tokens_per_step=sum(lengths) / rows * config.batch_size,
        num_tokens=count_trained_tokens(
            examples,
            num_steps,
            batch_size=config.batch_size,
            sequence_length=config.sequence_length,
            seed=(seed, iteration),
            packed=packed,
            paired=paired,
        ),
    )
