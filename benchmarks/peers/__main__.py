"""Measures a peer that does not need Keras: `python -m benchmarks.peers DIRECTORY`.

The directory is one of transformers. It also has `job.json`:

- `peer`: `transformers`, `transformers_prefix`, `vllm` or `llama_cpp`;
- `work`: `sample` or `train`;
- the arguments of `make_sampler` or `make_trainer`, and of the measurement.

Writes `measurements.json` there, since libraries print lines of their own. Needs the
libraries of the peer, and no other.
"""

import importlib
import json
import sys
from pathlib import Path

from benchmarks.measurements import measure_sampling, measure_training


def main(directory):
    job = json.loads(Path(directory, "job.json").read_text())
    name = job["peer"].removesuffix("_prefix")
    peer = importlib.import_module(f"benchmarks.peers.{name}")
    if job["work"] == "train":
        step = peer.make_trainer(directory, job["tokens"], job["steps"])
        return measure_training(step, job["repeats"])
    arguments = {"reuse_prefix": True} if job["peer"].endswith("_prefix") else {}
    sample = peer.make_sampler(
        directory, job["prefix"], job["questions"], job["batch_size"], **arguments
    )
    return measure_sampling(
        sample, job["count"], job["warm_up"], compiles_at_once=name == "transformers"
    )


if __name__ == "__main__":
    found = json.dumps(main(sys.argv[1]))
    Path(sys.argv[1], "measurements.json").write_text(found)
