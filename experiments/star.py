"""Run STaR: sample, grade, rationalize, fine-tune, and again.

    python -m experiments.star \
        --flagfile=experiments/flagfiles/arithmetic_cpu.flags --run_dir=runs/cpu

The same command goes on with a run that was interrupted.
"""

import dataclasses
import json
import tempfile
from pathlib import Path

import keras
from absl import app, flags
from etils import epath

from experiments.common import load_model, make_sampler, make_task
from star_keras import files, packing, prompts
from star_keras.callbacks import (
    EpochSteps,
    ExponentialSteps,
    StarIterationCallback,
    SteadySteps,
    Throughput,
)
from star_keras.distribution import processes
from star_keras.evaluation import evaluate
from star_keras.json_lines import write_json_lines
from star_keras.learning_rates import DECAYS, WarmupSchedule
from star_keras.models import GPTJCausalLM

FLAGS = flags.FLAGS

# === Run ===
flags.DEFINE_string("run_dir", None, "Directory of the run. Needed unless --dry_run.")
flags.DEFINE_bool("dry_run", False, "Print prompts, rows and plan; train nothing.")
flags.DEFINE_integer("verbose", 2, "0 is silent, 1 has bars, 2 a line an iteration.")

# === Model ===
flags.DEFINE_bool("gradient_checkpointing", False, "Recompute activations (GPT-J).")
flags.DEFINE_integer(
    "lora_rank", None, "Train low-rank adapters of the attention alone.", lower_bound=1
)

# === Outer loop ===
flags.DEFINE_integer("iterations", 10, "Iterations of the outer loop.")
flags.DEFINE_integer(
    "start_iter", None, "Run again from this iteration on. Leave it out to go on."
)
flags.DEFINE_integer("n_train_samples", None, "Problems an iteration. Default: all.")
flags.DEFINE_integer("n_eval_samples", None, "Held-out problems. Default: all.")
flags.DEFINE_bool("rationalize", True, "Try failed problems again with a hint.")
flags.DEFINE_float("p_rationalization", 1.0, "Share of the failed tried again.")
flags.DEFINE_float("p_show_hint_save", 0.0, "Share trained on with their hint.")
flags.DEFINE_bool("no_prompt", False, "Sample without worked examples.")
flags.DEFINE_bool("few_shot_train", False, "Train with the worked examples.")
flags.DEFINE_bool("direct", False, "Train on the answers alone.")
flags.DEFINE_integer("copy_n", 0, "Earlier iterations whose rationales count again.")
flags.DEFINE_integer("samples_per_problem", 1, "Needs a --temperature above 0.")
flags.DEFINE_bool("drop_duplicates", False, "Train on a problem's rationales once.")
flags.DEFINE_integer("max_rationales_per_problem", None, "Default: all.")
flags.DEFINE_bool("weigh_by_problem", False, "Weigh each by 1 / its problem's.")
flags.DEFINE_integer(
    "mastered_after", 0, "Iterations all right after which a problem is mastered."
)
flags.DEFINE_float("p_mastered", 0.25, "Share of the mastered that are sampled.")
flags.DEFINE_bool("check_working", False, "Keep only rationales with right steps.")
flags.DEFINE_enum("on_empty", "continue", ["continue", "stop"], "If nothing is kept.")
flags.DEFINE_bool("skip_eval", False, "Do not evaluate.")
flags.DEFINE_list(
    "extra_eval_splits", [], "Splits that the final model is evaluated on as well."
)
flags.DEFINE_integer("keep_weights", 1, "Iterations whose weights stay on disk.")
flags.DEFINE_integer("checkpoint_steps", 500, "Training steps between checkpoints.")

# === Training ===
flags.DEFINE_enum(
    "schedule",
    "exponential",
    ["exponential", "steady", "epochs"],
    "How an iteration's training steps grow.",
)
flags.DEFINE_integer("start_steps", 40, "exponential, steady: first iteration's steps.")
flags.DEFINE_float("growth", 1.2, "exponential: factor an iteration.")
flags.DEFINE_integer("add_steps", 20, "steady: further steps an iteration.")
flags.DEFINE_float("base_epochs", 1.0, "epochs: first iteration's passes.")
flags.DEFINE_float("add_epochs", 0.2, "epochs: further passes an iteration.")
flags.DEFINE_integer("batch_size", 8, "Rows a training step.")
flags.DEFINE_integer("row_length", 1024, "Tokens a row.")
flags.DEFINE_float("learning_rate", 1e-6, "Adam's, after the warm-up.")
flags.DEFINE_integer("warmup_steps", 100, "Steps to reach it, each iteration.")
flags.DEFINE_enum("lr_schedule", "constant", DECAYS, "What follows the warm-up.")
flags.DEFINE_integer("hold_steps", 0, "linear, cosine: steps before the fall.")
flags.DEFINE_integer("decay_steps", 0, "linear, cosine: steps to a tenth of the rate.")
flags.DEFINE_float("beta_2", 0.999, "Adam's.")
flags.DEFINE_float("clipnorm", 1.0, "Global norm that gradients are clipped to.")
flags.DEFINE_integer(
    "gradient_accumulation_steps", 1, "Parts a batch is computed in (GPT-J)."
)
flags.DEFINE_float("z_loss", 0.0, "Weight of PaLM's z-loss (GPT-J).")


def make_steps():
    if FLAGS.schedule == "exponential":
        return ExponentialSteps(FLAGS.start_steps, growth=FLAGS.growth)
    if FLAGS.schedule == "steady":
        return SteadySteps(FLAGS.start_steps, FLAGS.add_steps)
    return EpochSteps(FLAGS.base_epochs, FLAGS.add_epochs)


def make_optimizer():
    schedule = WarmupSchedule(
        FLAGS.learning_rate,
        FLAGS.warmup_steps,
        decay=FLAGS.lr_schedule,
        decay_steps=FLAGS.decay_steps,
        hold_steps=FLAGS.hold_steps,
    )
    return keras.optimizers.Adam(
        schedule, beta_2=FLAGS.beta_2, global_clipnorm=FLAGS.clipnorm, name="star_adam"
    )


def compile_model(model):
    """Make the model ready for `fit`, as the flags say."""
    if FLAGS.gradient_checkpointing:
        if not isinstance(model, GPTJCausalLM):
            raise app.UsageError(
                "--gradient_checkpointing is for GPT-J models. "
                f"{FLAGS.preset!r} is a {type(model).__name__}."
            )
        model.backbone.gradient_checkpointing = True
    if FLAGS.lora_rank:
        model.backbone.enable_lora(FLAGS.lora_rank)
        for layer in model.layers:
            if layer is not model.backbone:  # such as an untied head
                layer.trainable = False
    if isinstance(model, GPTJCausalLM):
        arguments = {
            "gradient_accumulation_steps": FLAGS.gradient_accumulation_steps,
            "z_loss": FLAGS.z_loss,
        }
    else:
        for name in ("gradient_accumulation_steps", "z_loss"):
            if FLAGS[name].value != FLAGS[name].default:
                raise app.UsageError(f"--{name} is for GPT-J models.")
        arguments = {
            "loss": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            )
        }
    model.compile(optimizer=make_optimizer(), weighted_metrics=[], **arguments)


def print_dry_run(star, task, preprocessor):
    """Show what a run would do with its first problems, without a model step."""
    problem = task.problems("train")[0]
    for hint in (False, True) if star.rationalize else (False,):
        prefix = (
            ""
            if FLAGS.no_prompt
            else prompts.few_shot_prompt(task, hint=hint, direct=FLAGS.direct)
        )
        print(f"\n=== Prompt {'with' if hint else 'without'} a hint ===")
        print(prefix + task.format_question(problem, hint=hint) + "[completion]")

    print("\n=== A packed row: segment, position, token, next token, weight ===")
    tokenizer = preprocessor.tokenizer
    examples = packing.tokenize_examples(
        preprocessor,
        [
            (
                task.format_question(example.problem),
                task.format_response(
                    "" if FLAGS.direct else example.rationale, example.problem
                ),
                1.0,
            )
            for example in task.few_shot_examples[:2]
        ],
    )
    if examples:
        length = min(sum(map(len, examples)), FLAGS.row_length)
        row = packing.pack([len(e) for e in examples], length)[0]
        x, y, weight = packing.make_row(
            [examples[i] for i in row], length, tokenizer.pad_token_id
        )
        for i in range(length):
            token, target = (
                tokenizer.id_to_token(int(t)) for t in (x["token_ids"][i], y[i])
            )
            print(
                f"{x['segment_ids'][i]:3d} {x['positions'][i]:5d}  {token:<12} "
                f"{target:<12} {weight[i]:g}"
            )

    drawn = min(FLAGS.n_train_samples or 10**9, len(task.problems("train")))
    print("\n=== Plan ===")
    print(f"{FLAGS.iterations} iterations, {drawn} training problems each")
    if not FLAGS.skip_eval:
        held_out = min(FLAGS.n_eval_samples or 10**9, len(task.problems("eval")))
        print(f"{held_out} held-out problems")
    if FLAGS.schedule != "epochs":
        steps = [star.steps(i, 1) for i in range(1, FLAGS.iterations + 1)]
        print(f"steps by iteration: {steps}, {sum(steps)} together")
    print(f"{FLAGS.batch_size} rows of {FLAGS.row_length} tokens a step")


def save_preset(model, path):
    """Save a preset that is there as a whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    if partial.exists():
        partial.rmtree()
    # KerasHub saves to local directories alone.
    with tempfile.TemporaryDirectory() as directory:
        model.save_to_preset(directory)
        for file in sorted(Path(directory).rglob("*.*")):
            target = partial / str(file.relative_to(directory))
            target.parent.mkdir(parents=True, exist_ok=True)
            epath.Path(file).copy(target)
    if path.exists():
        path.rmtree()
    partial.rename(path)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if FLAGS.run_dir is None and not FLAGS.dry_run:
        raise app.UsageError("--run_dir is needed unless --dry_run is given.")

    # === Task, mesh, model ===
    keras.utils.set_random_seed(FLAGS.seed)
    task = make_task()
    unknown = sorted(set(FLAGS.extra_eval_splits) - set(task.splits))
    if unknown:
        raise app.UsageError(
            f"--extra_eval_splits has {unknown}. Expected some of {list(task.splits)}."
        )
    model = load_model()
    compile_model(model)

    # === Samplers and outer loop ===
    sampler = make_sampler(model)
    # One sampler for both where it can be: it compiles once.
    eval_sampler = make_sampler(model, greedy=True) if FLAGS.temperature else sampler
    star = StarIterationCallback(
        model,
        task,
        sampler,
        tempfile.mkdtemp() if FLAGS.dry_run else FLAGS.run_dir,
        eval_sampler=eval_sampler,
        steps=make_steps(),
        batch_size=FLAGS.batch_size,
        row_length=FLAGS.row_length,
        n_train_samples=FLAGS.n_train_samples,
        n_eval_samples=FLAGS.n_eval_samples,
        rationalize=FLAGS.rationalize,
        p_rationalization=FLAGS.p_rationalization,
        p_show_hint_save=FLAGS.p_show_hint_save,
        few_shot=not FLAGS.no_prompt,
        few_shot_train=FLAGS.few_shot_train,
        direct=FLAGS.direct,
        copy_n=FLAGS.copy_n,
        samples_per_problem=FLAGS.samples_per_problem,
        drop_duplicates=FLAGS.drop_duplicates,
        max_rationales_per_problem=FLAGS.max_rationales_per_problem,
        weigh_by_problem=FLAGS.weigh_by_problem,
        mastered_after=FLAGS.mastered_after,
        p_mastered=FLAGS.p_mastered,
        check_working=FLAGS.check_working,
        on_empty=FLAGS.on_empty,
        skip_eval=FLAGS.skip_eval,
        keep_weights=FLAGS.keep_weights,
        checkpoint_steps=FLAGS.checkpoint_steps,
        seed=FLAGS.seed,
    )
    if FLAGS.dry_run:
        print_dry_run(star, task, model.preprocessor)
        return
    if FLAGS.start_iter:
        star.rewind(FLAGS.start_iter)

    # === The run ===
    model.fit(
        star.dataset,
        epochs=FLAGS.iterations,
        initial_epoch=star.initial_epoch,
        # Its clock stops before the evaluation that ends an epoch.
        callbacks=[Throughput(FLAGS.batch_size * FLAGS.row_length), star],
        shuffle=False,  # the dataset is shuffled already
        verbose=FLAGS.verbose,
    )

    # === Result ===
    run_dir = star.run_dir
    prefix = ""
    if not FLAGS.no_prompt:
        prefix = prompts.few_shot_prompt(task, direct=FLAGS.direct)
    for split in FLAGS.extra_eval_splits:
        figures, completions = evaluate(
            task,
            task.problems(split),
            eval_sampler,
            prefix=prefix,
            iteration=star.initial_epoch,
        )
        if processes.is_writer():
            text = json.dumps(figures, indent=2) + "\n"
            files.write(run_dir / f"{split}.json", text.encode("utf-8"))
            path = run_dir / "samples" / f"{split}.jsonl"
            write_json_lines(path, map(dataclasses.asdict, completions))
        print(split, {name: round(value, 4) for name, value in figures.items()})
    with processes.whole(model.variables):
        if processes.is_writer():
            save_preset(model, run_dir / "preset")
    if not processes.is_writer():
        return
    for line in star.metrics:
        print(
            f"iteration {line['iteration']:3d}  "
            + "  ".join(
                f"{key.removeprefix('eval_accuracy/')} {value:.1%}"
                for key, value in line.items()
                if key.startswith("eval_accuracy")
            )
        )
    print(f"Samples, metrics, plots and the final preset are in {run_dir}.")


if __name__ == "__main__":
    app.run(main)
