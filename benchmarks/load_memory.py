"""Peak memory of loading a Hugging Face checkpoint, against its size.

    python -m benchmarks.load_memory

Writes a random GPT-J (12 layers of 768, 50,400 tokens: 650 MB in float32) into a
temporary directory, loads it in a process of its own, and prints the most
memory that the process held beyond what it held after its imports and the
loading of a tiny model.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = {
    "tiny": {"num_layers": 1, "hidden_dim": 64, "vocabulary_size": 64},
    "large": {"num_layers": 12, "hidden_dim": 768, "vocabulary_size": 50400},
}


def write(directory):
    from star_keras.models import GPTJBackbone, GPTJCausalLM, save_hugging_face

    for name, sizes in SIZES.items():
        backbone = GPTJBackbone(
            num_heads=4,
            intermediate_dim=4 * sizes["hidden_dim"],
            rotary_dim=16,
            **sizes,
        )
        save_hugging_face(GPTJCausalLM(backbone), Path(directory) / name, 200 * 2**20)


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def load(directory, dtype):
    from star_keras.models import GPTJCausalLM

    GPTJCausalLM.from_preset(Path(directory) / "tiny", dtype=dtype)
    before = peak_mb()
    GPTJCausalLM.from_preset(Path(directory) / "large", dtype=dtype)
    files = (Path(directory) / "large").glob("*.safetensors")
    size = sum(path.stat().st_size for path in files) / 2**20
    held = size / 2 if dtype == "bfloat16" else size
    peak = peak_mb() - before
    print(
        f"{dtype:9} checkpoint {size:.0f} MiB, model {held:.0f} MiB, peak {peak:.0f} "
        f"MiB: {peak / size:.2f} x the checkpoint, {peak / held:.2f} x the model"
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
