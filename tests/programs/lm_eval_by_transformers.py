"""Answers of lm_eval's own adapter: a process of its own, without TensorFlow.

    python lm_eval_by_transformers.py DIRECTORY REQUESTS ANSWERS

`DIRECTORY` has a GPT-J. `REQUESTS` and `ANSWERS` are JSON files: a dict from a kind of
request to the arguments of each, or to the answers.
"""

import json
import pathlib
import sys

import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

directory, requests, answers = sys.argv[1:]
tokenizer = transformers.GPT2Tokenizer.from_pretrained(directory)
tokenizer.pad_token = tokenizer.eos_token
lm = HFLM(
    transformers.GPTJForCausalLM.from_pretrained(directory).float().eval(),
    tokenizer=tokenizer,
    batch_size=3,
    max_length=64,
    backend="causal",
)
found = {}
for kind, arguments in json.loads(pathlib.Path(requests).read_text()).items():
    instances = [
        Instance(request_type=kind, doc={}, arguments=tuple(a), idx=i)
        for i, a in enumerate(arguments)
    ]
    found[kind] = getattr(lm, kind)(instances, disable_tqdm=True)
text = json.dumps(found, default=lambda value: value.item())
pathlib.Path(answers).write_text(text)
