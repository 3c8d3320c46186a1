"""Peak memory of loading a Hugging Face checkpoint, against its size.

    python -m benchmarks.load_memory

Writes a random GPT-J (12 layers of 768, 50,400 tokens: 620 MiB in float32) into a
temporary directory and loads it in a process of its own. Prints the peak of that
process above its peak after the imports and the loading of a tiny model.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.libraries import load_libraries

SIZES = {
    "tiny": {"num_layers": 1, "hidden_dim": 64, "vocabulary_size": 64},
    "large": {"num_layers": 12, "hidden_dim": 768, "vocabulary_size": 50400},
}


def write(directory):
    """Write the checkpoints `tiny` and `large`."""
    load_libraries(keep_memory=False)
    from star_keras.models import GPTJBackbone, GPTJCausalLM, save_hugging_face

    for name, sizes in SIZES.items():
        backbone = GPTJBackbone(
            num_heads=4,
            intermediate_dim=4 * sizes["hidden_dim"],
            rotary_dim=16,
            **sizes,
        )
        save_hugging_face(GPTJCausalLM(backbone), Path(directory) / name, 200 * 2**20)


def peak_mib():
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def load(directory, dtype):
    """Load `tiny`, then `large`, and print the growth of the peak."""
    load_libraries(keep_memory=False)
    from star_keras.models import GPTJCausalLM

    GPTJCausalLM.from_preset(Path(directory) / "tiny", dtype=dtype)
    before = peak_mib()
    GPTJCausalLM.from_preset(Path(directory) / "large", dtype=dtype)
    files = (Path(directory) / "large").glob("*.safetensors")
    size = sum(path.stat().st_size for path in files) / 2**20
    model_size = size / 2 if dtype == "bfloat16" else size
    peak = peak_mib() - before
    print(
        f"{dtype:9} checkpoint {size:.0f} MiB, model {model_size:.0f} MiB, peak "
        f"{peak:.0f} MiB: {peak / size:.2f} x the checkpoint, "
        f"{peak / model_size:.2f} x the model"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(sys.argv[2])
    elif sys.argv[1:2] == ["load"]:
        load(*sys.argv[2:])
    else:
        command = [sys.executable, "-m", "benchmarks.load_memory"]
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run([*command, "write", directory], check=True)
            for dtype in ("float32", "bfloat16"):
                subprocess.run([*command, "load", directory, dtype], check=True)
