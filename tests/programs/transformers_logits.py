"""What transformers makes of directories: a process of its own, without TensorFlow.

PyTorch does not bear to be imported after TensorFlow.

    python transformers_logits.py DIRECTORY FIXTURES

Compares each directory in `DIRECTORY` with the fixture of its name, and prints JSON.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers

found = {}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    fixture = pathlib.Path(sys.argv[2]) / path.name
    arrays = np.load(fixture / "expected.npz")
    expected = json.loads((fixture / "expected.json").read_text(encoding="utf-8"))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    )
    mask = arrays["attention_mask"]
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor(arrays["token_ids"]).long(),
            attention_mask=torch.tensor(mask).long(),
        ).logits.numpy()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    found[path.name] = {
        "difference": float(np.abs(logits - arrays["logits"])[mask == 1].max()),
        "ids": [tokenizer(text)["input_ids"] for text in expected["texts"]],
    }
json.dump(found, sys.stdout)
