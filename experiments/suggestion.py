"""What `experiments.plan --suggest` promises, and the flagfile that it writes."""

from experiments.plan_programs import (
    estimate_candidate,
    iteration_of,
    make_model,
    with_times,
)

# Layouts (a mesh, with ZeRO or without) among which the compiler decides.
_COMPILED = 3
# A suggestion looks no further after so many programs that do not fit, besides the
# first without gradient checkpointing of each layout.
_MOST_REFUSED = 4


def suggest(settings, model_settings, config, optimizer):
    """Print the settings that fit and take least time, and write their flagfile."""
    from star_keras import planning
    from star_keras.models.splash_attention import splash_applies
    from star_keras.planning.suggest import candidates
    from star_keras.utils import files

    gpu = planning.GPUS.get(settings.topology)
    devices = [] if gpu else planning.tpu_devices(settings.topology)
    iteration = iteration_of(
        config,
        prefix_length=settings.prefix_length,
        prompt_length=settings.prompt_length,
    )
    ranked = candidates(
        make_model(model_settings, optimizer),
        gpu or planning.CHIPS[devices[0].device_kind],
        len(devices) or 1,
        iteration,
        splash=not gpu and splash_applies(iteration.sequence_length, devices[0]),
    )
    if gpu:
        best, values = ranked[0], None
        checked = "Not compiled: by arithmetic alone."
    else:
        best, values = fastest_by_compiler(
            ranked, devices, settings, model_settings, config, optimizer, iteration
        )
        checked = "Compiled. Nothing was run."
    lines = [
        f"Suggested for {settings.topology}: {iteration.completions} completions and "
        f"{iteration.steps} training steps an iteration.",
        checked,
        *table(promised(best, iteration), values),
    ]
    text = flagfile(
        {
            "preset": model_settings.preset,
            "dtype": model_settings.dtype,
            **best.flags,
            "batch_size": iteration.batch_size,
            "sequence_length": iteration.sequence_length,
            "max_new_tokens": iteration.max_new_tokens,
            **({} if model_settings.flash_attention else {"flash_attention": False}),
        },
        lines,
    )
    print(text, end="", flush=True)
    if settings.output:
        files.write(settings.output, text.encode("utf-8"))


def fastest_by_compiler(
    ranked, devices, settings, model_settings, config, optimizer, iteration
):
    """The fastest candidate by the compiler, and what it says of it.

    Of each layout (a mesh, with ZeRO or without) the first that fits is compiled, of
    `_COMPILED` layouts at most.

    Args:
        ranked: list of `Candidate`, the fastest by arithmetic first.
        devices: list of JAX devices of the topology.
        settings, model_settings, config, optimizer: The flags.
        iteration: `Iteration`.

    Returns:
        A `Candidate`, and the result of `compiled`.

    Raises:
        ValueError: if none of the first candidates fits.
    """
    refused, by_layout = set(), {}
    for candidate in ranked:
        layout = candidate.mesh, candidate.zero
        # One refusal to keep all activations is enough, whatever the parts.
        activations = candidate.checkpointing and candidate.parts
        programs = {
            "train": (*layout, "train", activations),
            "decode": (*layout, "sample", candidate.slots),
        }
        if layout in by_layout or refused & set(programs.values()):
            continue
        counted = sum(number is not False for *_, number in refused)
        if len(by_layout) == _COMPILED or counted >= _MOST_REFUSED:
            break
        print(f"compiling {candidate.flags}", flush=True)
        found = estimate_candidate(
            candidate, devices, settings, model_settings, config, optimizer
        )
        too_large = [name for name, x in found.items() if not x["fits"]]
        if not too_large:
            values = compiled(found, candidate, iteration)
            by_layout[layout] = candidate, values
            print(f"{values['iteration'][0]:.4g} s an iteration", flush=True)
        for name in too_large:
            needed = found[name]["memory"]["needed"]
            print(f"does not fit: {name} needs {needed / 2**30:.2f} GiB", flush=True)
            refused.add(programs["train" if name == "train" else "decode"])
    if by_layout:
        return min(by_layout.values(), key=lambda pair: pair[1]["iteration"][0])
    raise ValueError(
        "The compiler refused the best candidates. Use more devices, a shorter "
        "--sequence_length or --max_new_tokens, or --lora_rank."
    )


def promised(candidate, iteration) -> dict[str, tuple[float, float]]:
    """What arithmetic says of a candidate: `{name: (seconds, bytes of a device)}`."""
    train = sum(candidate.train_memory.values())
    sample = sum(candidate.sample_memory.values())
    return {
        "training step": (candidate.step_seconds, train),
        "decoding step": (candidate.token_seconds, sample),
        "iteration": (candidate.seconds(iteration), max(train, sample)),
    }


def compiled(found, candidate, iteration) -> dict[str, tuple[float, float]]:
    """What the compiler says of it, in the form of `promised`.

    Args:
        found: dict of the estimates `"train"`, `"prefill"` and `"decode"`, which fit.
        candidate: The `Candidate`.
        iteration: The `Iteration`.
    """
    timed = with_times(candidate, found, iteration.prompt_length)
    needed = {name: x["memory"]["needed"] for name, x in found.items()}
    return {
        "training step": (timed.step_seconds, needed["train"]),
        "decoding step": (timed.token_seconds, needed["decode"]),
        "iteration": (timed.seconds(iteration), max(needed.values())),
    }


def table(promises, compiled_values=None) -> list[str]:
    """Lines that show the promises, beside what the compiler says if it was asked."""
    rows = [f"{'':<15}{'promised':>20}"]
    if compiled_values:
        rows[0] += f"{'compiled':>22}"
    for name, promise in promises.items():
        row = f"{name:<15}{_cell(promise):>20}"
        if compiled_values:
            row += f"{_cell(compiled_values[name]):>22}"
        rows.append(row)
    return rows


def _cell(pair):
    seconds, size = pair
    return f"{seconds:.4g} s, {size / 2**30:.2f} GiB"


def flagfile(settings: dict, comments: list[str]) -> str:
    """A flagfile.

    Args:
        settings: Values by the names of their flags.
        comments: Lines of its first part.
    """
    lines = [f"# {line}".rstrip() for line in comments]
    for name, value in settings.items():
        if isinstance(value, bool):
            lines.append(f"--{name}" if value else f"--no{name}")
        else:
            lines.append(f"--{name}={value}")
    return "\n".join(lines) + "\n"
