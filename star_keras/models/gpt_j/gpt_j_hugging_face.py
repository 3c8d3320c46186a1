"""GPT-J to and from Hugging Face directories.

A directory has

- `config.json` with `"model_type": "gptj"`;
- the weights: one `model.safetensors` or `pytorch_model.bin`, or several such files
  with an index;
- the tokenizer: `vocab.json` and `merges.txt`, or `tokenizer.json`.
"""

import math
import re
from pathlib import Path

import huggingface_hub

from star_keras.models.gpt_j.gpt_j_backbone import GPTJBackbone
from star_keras.models.gpt_j.gpt_j_causal_lm_preprocessor import (
    GPTJCausalLMPreprocessor,
)
from star_keras.models.gpt_j.gpt_j_tokenizer import GPTJTokenizer
from star_keras.models.gpt_j.gpt_j_weights import gpt_j_weights
from star_keras.models.hugging_face.stored_weights import make_with_weights
from star_keras.models.hugging_face.tensor_files import (
    check_names,
    find_tensors,
    numpy_dtype,
    read_json,
    save_tensors,
    write_json,
)
from star_keras.models.preset_files import check_files

# Causal masks, which older files store among the weights.
_MASKS = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")
_SPECIAL = re.compile(r"<.*>|\[.*\]", re.DOTALL)
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

    Raises:
        ValueError: if `config.json` is damaged.
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


def load_hugging_face_gpt_j(
    cls, directory, load_weights=True, on_weight=None, **kwargs
):
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
        ValueError: if a file is damaged, the configuration is not one of GPT-J, a
            weight is missing, unknown, or of another shape, or merges.txt is not that
            of vocab.json.
        FileNotFoundError: if there are no weights, or one of their files is
            missing.
    """
    directory = Path(directory)
    check_files(directory)
    config = read_json(directory / "config.json")
    config.setdefault("layer_norm_epsilon", 1e-5)
    for name in _SIZES.values():
        if name not in config and name != "n_inner":
            raise ValueError(f"{directory / 'config.json'} lacks the field `{name}`.")
    config["n_inner"] = config.get("n_inner") or 4 * config["n_embd"]
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
    tokenizer = load_gpt_j_tokenizer(directory)
    if tokenizer is not None:
        preprocessor = GPTJCausalLMPreprocessor(
            tokenizer, sequence_length=min(1024, sizes["max_sequence_length"])
        )
    sizes |= kwargs
    if not load_weights:
        return cls(GPTJBackbone(**sizes), preprocessor)
    tensors = find_tensors(directory)
    found = {name for name in tensors if not _MASKS.fullmatch(name)}

    def make_model():
        model = cls(GPTJBackbone(**sizes), preprocessor, compile=False)
        check_names(directory, gpt_j_weights(model).keys(), found)
        return model

    def read(name):
        value = tensors[name]()
        if value.ndim == 2 and name != "transformer.wte.weight":
            value = value.T
        return value

    return make_with_weights(make_model, gpt_j_weights, read, on_weight)


def save_hugging_face_gpt_j(model, directory, max_file_bytes=2 * 1024**3):
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
    size = numpy_dtype(model.backbone.token_embedding.embeddings).itemsize
    sizes = {name: math.prod(x.shape) * size for name, x in weights.items()}

    def read(name):
        value = weights[name].read()
        if value.ndim == 2 and name != "transformer.wte.weight":
            value = value.T
        return value

    save_tensors(directory, sizes, read, max_file_bytes)
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
    write_json(directory / "config.json", config)


def load_gpt_j_tokenizer(directory):
    """The tokenizer of a Hugging Face directory.

    Args:
        directory: Path of the directory.

    Returns:
        A `GPTJTokenizer`, or `None` if there are no tokenizer files.

    Raises:
        ValueError: if a line of merges.txt is malformed, or a token of vocab.json has
            no merge: one of the files is cut short, or of another tokenizer.
    """
    directory = Path(directory)
    vocabulary, merges = directory / "vocab.json", directory / "merges.txt"
    if vocabulary.is_file() and merges.is_file():
        tokens = read_json(vocabulary)
        lines = merges.read_text(encoding="utf-8").splitlines()
        rules = [line for line in lines if line and not _HEADER.match(line)]
        _check_merges(merges, rules, tokens)
        return GPTJTokenizer(vocabulary=tokens, merges=rules)
    path = directory / "tokenizer.json"
    if not path.is_file():
        return None
    state = read_json(path)
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


def _check_merges(path, merges, tokens):
    """Check that merges make every token of a vocabulary, which is in two files."""
    made = set()
    for number, merge in enumerate(merges, start=1):
        parts = merge.split(" ")
        if len(parts) != 2 or not tokens.keys() >= {*parts, "".join(parts)}:
            raise ValueError(
                f"{path} is damaged: merge {number} is {merge!r}. Expected two tokens "
                "of vocab.json that make a third. Copy the file again."
            )
        made.add("".join(parts))
    # A special token, `<|endoftext|>` or `[PAD]`, is made by none.
    lost = [
        token
        for token in tokens
        if len(token) > 1 and token not in made and not _SPECIAL.fullmatch(token)
    ]
    if lost:
        raise ValueError(
            f"{path} is damaged: it has {len(merges)} merges, and none makes "
            f"{lost[0]!r}. Expected merges for all tokens of vocab.json; {len(lost)} "
            "have none. Copy the file again."
        )


def _save_tokenizer(tokenizer, directory, max_length):
    end = "<|endoftext|>"
    write_json(directory / "vocab.json", dict(tokenizer.vocabulary))
    merges = "\n".join(["#version: 0.2", *tokenizer.merges])
    (directory / "merges.txt").write_text(merges + "\n", encoding="utf-8")
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "GPT2Tokenizer",
            "model_max_length": max_length,
            "add_prefix_space": False,
            **dict.fromkeys(("bos_token", "eos_token", "unk_token"), end),
        },
    )


def _model_type(path):
    check_files(path)
    return read_json(path).get("model_type")
