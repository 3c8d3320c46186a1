"""GPT-J to and from Hugging Face directories.

A directory has

- `config.json` with `"model_type": "gptj"`;
- the weights: one `model.safetensors` or `pytorch_model.bin`, or several such files
  with an index;
- the tokenizer: `vocab.json` and `merges.txt`, or `tokenizer.json`.
"""

import functools
import importlib.util
import json
import re
from pathlib import Path

import huggingface_hub
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from star_keras.models.gpt_j.gpt_j_backbone import GPTJBackbone
from star_keras.models.gpt_j.gpt_j_causal_lm_preprocessor import (
    GPTJCausalLMPreprocessor,
)
from star_keras.models.gpt_j.gpt_j_tokenizer import GPTJTokenizer
from star_keras.models.gpt_j.gpt_j_weights import (
    gpt_j_weights,
    make_with_weights,
    read_weight,
)

# Causal masks, which older files store among the weights.
_MASKS = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")
_HEADER = re.compile("#version: ")  # the first line of merges.txt
_SIZES = {
    "vocabulary_size": "vocab_size",
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "hidden_dim": "n_embd",
    "intermediate_dim": "n_inner",
    "rotary_dim": "rotary_dim",
    "max_sequence_length": "n_positions",
    "layer_norm_epsilon": "layer_norm_epsilon",
}


def find_hugging_face_gpt_j(preset: str) -> Path | None:
    """The local directory of a Hugging Face GPT-J, downloaded if needed.

    Args:
        preset: `"hf://organization/name"`, or the path of a directory.

    Returns:
        The directory, or `None` if `preset` is anything else, e.g. a Keras preset.
    """
    preset = str(preset)
    if preset.startswith("hf://"):
        repository = preset.removeprefix("hf://")
        path = Path(huggingface_hub.hf_hub_download(repository, "config.json"))
        if _model_type(path) != "gptj":
            return None
        found = huggingface_hub.list_repo_files(repository)
        safe = any(name.endswith(".safetensors") for name in found)
        weights = "*.safetensors*" if safe else "pytorch_model*"
        return Path(
            huggingface_hub.snapshot_download(
                repository, allow_patterns=["*.json", "merges.txt", weights]
            )
        )
    path = Path(preset)
    return path if _model_type(path / "config.json") == "gptj" else None


def load_hugging_face(cls, directory, load_weights=True, on_weight=None, **kwargs):
    """Load a `GPTJCausalLM` from a Hugging Face directory.

    Weights are read one at a time, straight into the layout of the current
    `keras.distribution`.

    Args:
        cls: The class of the model.
        directory: Path of the directory.
        load_weights: bool. Whether to read the weights. Random otherwise. Defaults
            to `True`.
        on_weight: optional callable without arguments, called after each weight.
        **kwargs: Arguments of `GPTJBackbone`, e.g. `dtype="bfloat16"`.

    Returns:
        A model of `cls`, with a preprocessor if the directory has a tokenizer.

    Raises:
        ValueError: if the configuration is not one of GPT-J, or a weight is
            missing, unknown, or of another shape.
        FileNotFoundError: if there are no weights, or one of their files is
            missing.
        ImportError: if the weights are PyTorch files and PyTorch is missing.
    """
    directory = Path(directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config["n_inner"] = config.get("n_inner") or 4 * config["n_embd"]
    config.setdefault("layer_norm_epsilon", 1e-5)
    for name, valid in (
        ("activation_function", ("gelu_new", "gelu_pytorch_tanh")),
        ("tie_word_embeddings", (False,)),
    ):
        if config.get(name, valid[0]) not in valid:
            raise ValueError(
                f"{directory / 'config.json'}: expected {name} to be one of "
                f"{valid}. Received: {name}={config[name]!r}."
            )
    sizes = {ours: config[theirs] for ours, theirs in _SIZES.items()}
    preprocessor = None
    tokenizer = load_tokenizer(directory)
    if tokenizer is not None:
        preprocessor = GPTJCausalLMPreprocessor(
            tokenizer, sequence_length=min(1024, sizes["max_sequence_length"])
        )
    sizes |= kwargs
    if not load_weights:
        return cls(GPTJBackbone(**sizes), preprocessor)
    tensors = _find_tensors(directory)

    def make_model():
        model = cls(GPTJBackbone(**sizes), preprocessor, compile=False)
        _check_names(directory, gpt_j_weights(model), tensors)
        return model

    def read(name):
        value = tensors[name]()
        if value.ndim == 2 and name != "transformer.wte.weight":
            value = value.T
        return value

    return make_with_weights(make_model, read, on_weight)


def save_hugging_face(model, directory, max_file_bytes=2 * 1024**3):
    """Save a `GPTJCausalLM` as a Hugging Face directory.

    Args:
        model: The model. LoRA adapters are merged into their kernels.
        directory: Path of the directory, made if needed.
        max_file_bytes: int. Largest size of a `*.safetensors` file with more than
            one weight. That much is held in memory. Defaults to 2 GiB.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = gpt_j_weights(model)
    size = np.dtype(_numpy_dtype(model.backbone.token_embedding.embeddings)).itemsize
    files, room = [[]], max_file_bytes
    for name, (_, shape) in weights.items():
        needed = int(np.prod(shape)) * size
        if needed > room and files[-1]:
            files.append([])
            room = max_file_bytes
        files[-1].append(name)
        room -= needed
    weight_map, total = {}, 0
    for number, names in enumerate(files, start=1):
        file = "model.safetensors"
        if len(files) > 1:
            file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        tensors = {}
        for name in names:
            value = read_weight(*weights[name])
            if value.ndim == 2 and name != "transformer.wte.weight":
                value = value.T
            tensors[name] = np.ascontiguousarray(value)
            total += value.nbytes
            weight_map[name] = file
        safetensors.numpy.save_file(
            tensors, directory / file, metadata={"format": "pt"}
        )
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(directory / "model.safetensors.index.json", index)
    backbone = model.backbone
    config = {
        "architectures": ["GPTJForCausalLM"],
        "model_type": "gptj",
        "activation_function": "gelu_new",
        "tie_word_embeddings": False,
        "torch_dtype": str(backbone.token_embedding.embeddings.dtype),
        **{theirs: getattr(backbone, ours) for ours, theirs in _SIZES.items()},
    }
    if model.preprocessor is not None:
        tokenizer = model.preprocessor.tokenizer
        config["bos_token_id"] = config["eos_token_id"] = tokenizer.end_token_id
        _save_tokenizer(tokenizer, directory, backbone.max_sequence_length)
    _write_json(directory / "config.json", config)


def load_tokenizer(directory):
    """The tokenizer of a Hugging Face directory.

    Args:
        directory: Path of the directory.

    Returns:
        A `GPTJTokenizer`, or `None` if there are no tokenizer files.
    """
    directory = Path(directory)
    vocabulary, merges = directory / "vocab.json", directory / "merges.txt"
    if vocabulary.is_file() and merges.is_file():
        lines = merges.read_text(encoding="utf-8").splitlines()
        return GPTJTokenizer(
            vocabulary=json.loads(vocabulary.read_text(encoding="utf-8")),
            merges=[line for line in lines if line and not _HEADER.match(line)],
        )
    path = directory / "tokenizer.json"
    if not path.is_file():
        return None
    state = json.loads(path.read_text(encoding="utf-8"))
    added = {token["content"]: token["id"] for token in state.get("added_tokens", [])}
    return GPTJTokenizer(
        # Of the added tokens only the end token has a text; the others are padding.
        vocabulary=state["model"]["vocab"]
        | {k: v for k, v in added.items() if k == "<|endoftext|>"},
        merges=[
            merge if isinstance(merge, str) else " ".join(merge)
            for merge in state["model"]["merges"]
        ],
    )


def _save_tokenizer(tokenizer, directory, max_length):
    end = "<|endoftext|>"
    _write_json(directory / "vocab.json", dict(tokenizer.vocabulary))
    merges = "\n".join(["#version: 0.2", *tokenizer.merges])
    (directory / "merges.txt").write_text(merges + "\n", encoding="utf-8")
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "GPT2Tokenizer",
            "model_max_length": max_length,
            "add_prefix_space": False,
            **dict.fromkeys(("bos_token", "eos_token", "unk_token"), end),
        },
    )


def _model_type(path):
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8")).get("model_type")


def _write_json(path, value):
    text = json.dumps(value, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _numpy_dtype(variable):
    return ml_dtypes.bfloat16 if variable.dtype == "bfloat16" else variable.dtype


def _check_names(directory, expected, found):
    found = {name for name in found if not _MASKS.fullmatch(name)}
    missing, unknown = sorted(expected.keys() - found), sorted(found - expected.keys())
    if missing or unknown:
        raise ValueError(
            f"The weights in {directory} are not those of its config.json. Expected "
            f"{len(expected)} names. Missing: {missing[:5]} ({len(missing)} of them). "
            f"Unknown: {unknown[:5]} ({len(unknown)} of them)."
        )


def _find_tensors(directory):
    """Dict from the name of a tensor to a function that reads it."""
    for stem, suffix, names_in, read in (
        ("model", "safetensors", _safetensors_names, _read_safetensor),
        ("pytorch_model", "bin", _torch_names, _read_torch_tensor),
    ):
        index = directory / f"{stem}.{suffix}.index.json"
        if index.is_file():
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = {name: directory / file for name, file in names.items()}
            gone = sorted({p.name for p in names.values() if not p.is_file()})
            if gone:
                raise FileNotFoundError(
                    f"{index} names {gone}, which {directory} lacks. Download them."
                )
        elif (directory / f"{stem}.{suffix}").is_file():
            path = directory / f"{stem}.{suffix}"
            names = dict.fromkeys(names_in(path), path)
        else:
            continue
        return {
            name: functools.partial(read, path, name) for name, path in names.items()
        }
    raise FileNotFoundError(
        f"There are no weights in {directory}. Expected model.safetensors, "
        "pytorch_model.bin, or several such files with an index."
    )


def _safetensors_names(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        return list(file.keys())


def _read_safetensor(path, name):
    # Opened anew for each weight: its pages stay in memory until the file is closed.
    with safetensors.safe_open(path, framework="numpy") as file:
        return file.get_tensor(name)  # a copy


@functools.lru_cache(maxsize=1)
def _torch_file(path):
    if importlib.util.find_spec("torch") is None:
        raise ImportError(
            f"{path} is a PyTorch file; reading it needs PyTorch: pip install torch."
        )
    import torch

    return torch.load(path, map_location="cpu", mmap=True, weights_only=True)


def _torch_names(path):
    return list(_torch_file(path))


def _read_torch_tensor(path, name):
    tensor = _torch_file(path)[name]
    # numpy has no bfloat16 of its own.
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
