"""What transformers makes of GPT-J: a process of its own, without TensorFlow.

PyTorch does not bear to be imported after TensorFlow.

    python gpt_j_by_transformers.py cases FIXTURES DIRECTORY
    python gpt_j_by_transformers.py directory OURS THEIRS

`cases` writes an npz file for each fixture with what transformers computes today, and
cases of other shapes. `directory` loads the Hugging Face directory `OURS`, saves it
as `THEIRS`, with PyTorch's files as `THEIRS/bin`, and the logits and token ids as
`THEIRS/expected.npz`.
"""

import json
import pathlib
import runpy
import sys

import numpy as np
import torch
import transformers

FIXTURE_INPUTS = ("token_ids", "attention_mask", "prompt_lengths")
TEXT = "Don't\n\nadd 12 + 3!"


def write_cases(fixtures, output):
    script = runpy.run_path(str(fixtures / "make_gpt_j_fixtures.py"))
    for path in (fixtures / "gpt_j").glob("*.npz"):
        arrays = dict(np.load(path))
        state = {
            key.removeprefix("state/"): value
            for key, value in arrays.items()
            if key.startswith("state/")
        }
        inputs = {name: arrays[name] for name in FIXTURE_INPUTS}
        config = json.loads(str(arrays["config"]))
        np.savez(output / path.name, **script["expectations"](config, state, **inputs))
    for num_layers in (1, 3):
        for rotary_dim in (2, 6, 8):
            config = {
                "vocab_size": 37,
                "n_positions": 64,
                "n_layer": num_layers,
                "n_head": 3,
                "n_embd": 24,
                "n_inner": 32,
                "rotary_dim": rotary_dim,
                "layer_norm_epsilon": 1e-5,
            }
            case = script["make_case"](
                config, length=40, real_lengths=[40, 3], prompt_lengths=[39, 39], seed=7
            )
            np.savez(output / f"shape_{num_layers}_{rotary_dim}.npz", **case)


def write_directory(ours, theirs):
    model = transformers.AutoModelForCausalLM.from_pretrained(ours)
    tokenizer = transformers.AutoTokenizer.from_pretrained(ours)
    with torch.no_grad():
        logits = model(torch.arange(1, 25).reshape(2, 12)).logits.numpy()
    model.save_pretrained(theirs)
    tokenizer.save_pretrained(theirs)  # a tokenizer.json
    (theirs / "bin").mkdir()
    # Old files also hold the causal masks.
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    state["transformer.h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
    state["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e9)
    torch.save(state, theirs / "bin" / "pytorch_model.bin")
    np.savez(
        theirs / "expected.npz",
        logits=logits,
        ids=tokenizer(TEXT)["input_ids"],
        end=tokenizer.eos_token_id,
    )


if __name__ == "__main__":
    what, source, target = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
    target.mkdir(exist_ok=True)
    {"cases": write_cases, "directory": write_directory}[what](source, target)
