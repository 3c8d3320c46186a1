"""From a Hugging Face directory to a KerasHub causal LM."""

import fnmatch
import re
from pathlib import Path

import huggingface_hub
import numpy as np

from star_keras.models.hugging_face import (
    gemmas,
    gpt2,
    gpt_neo_x,
    llamas,
    mixtral,
    phi3,
    smollm3,
)
from star_keras.models.hugging_face.fields import Fields
from star_keras.models.hugging_face.stored_weights import make_with_weights
from star_keras.models.hugging_face.tensor_files import (
    check_names,
    find_tensors,
    read_json,
)
from star_keras.models.hugging_face.tokenizer_files import (
    check_tokenizer_kind,
    read_tokenizer,
)
from star_keras.models.preset_files import check_files

FAMILIES = {
    **llamas.FAMILIES,
    **gemmas.FAMILIES,
    **gpt2.FAMILIES,
    **gpt_neo_x.FAMILIES,
    **mixtral.FAMILIES,
    **phi3.FAMILIES,
    **smollm3.FAMILIES,
}

# What older files store among the weights, and what follows from the configuration.
_CONSTANTS = re.compile(
    r".*\.((attn|attention)\.(bias|masked_bias)|rotary_emb\.inv_freq)"
)
_HEAD = "lm_head.weight"
_SAFE = "model*.safetensors"  # no adapters, no consolidated.safetensors
_EMBEDDINGS = ".wte.weight", ".embed_tokens.weight", ".embed_in.weight"


def find_hugging_face(preset: str, tokenizer: bool = True) -> Path | None:
    """The local directory of a Hugging Face model, downloaded if needed.

    Args:
        preset: `"hf://organization/name"`, or the path of a directory.
        tokenizer: bool. Whether the tokenizer is wanted too. Defaults to `True`.

    Returns:
        The directory, or `None` if `preset` is anything else, e.g. a Keras preset.

    Raises:
        ValueError: if `config.json` is damaged; or, before a download, if the model is
            of another type, or its tokenizer is wanted and of another kind.
    """
    preset = str(preset)
    if not preset.startswith("hf://"):
        return Path(preset) if _model_type(Path(preset) / "config.json") else None
    repository = preset.removeprefix("hf://")
    config = read_json(huggingface_hub.hf_hub_download(repository, "config.json"))
    if not config.get("model_type"):
        return None
    _family(f"{preset}: config.json", config)
    found = huggingface_hub.list_repo_files(repository)
    if tokenizer:
        check_tokenizer_kind(preset, found)
    safe = fnmatch.filter(found, _SAFE)
    return Path(
        huggingface_hub.snapshot_download(
            repository,
            allow_patterns=[
                "*.json",
                "*.jinja",
                _SAFE if safe else "pytorch_model*",
            ],
        )
    )


def load_hugging_face_causal_lm(
    directory, load_weights=True, on_weight=None, preprocessor="auto", **kwargs
):
    """A KerasHub causal LM from a Hugging Face directory.

    It computes the logits of transformers, and its tokenizer gives the ids of the
    directory's own tokenizer.json. Weights are read one tensor at a time, straight
    into the layout of the current `keras.distribution`.

    Args:
        directory: Path with config.json; `*.safetensors` or `pytorch_model*.bin`
            files of float32, float16 or bfloat16; and optionally tokenizer.json.
        load_weights: bool. Whether to read the weights. Random otherwise. Defaults
            to `True`.
        on_weight: optional callable without arguments, called after each tensor.
        preprocessor: Another preprocessor, or `None`. Defaults to that of the
            directory.
        **kwargs: Arguments of the backbone, e.g. `dtype="bfloat16"`.

    Returns:
        A `keras_hub.models.CausalLM`, with a preprocessor if the directory has a
        tokenizer.

    Raises:
        ValueError: if a file is damaged; if config.json asks for what KerasHub's model
            does not compute or has an unknown field; if a weight is missing, unknown,
            or of another shape; or if the tokenizer is of another kind.
        FileNotFoundError: if there are no weights, or one of their files is missing.

    Example:
    ```text
    model = load_hugging_face_causal_lm("SmolLM2-135M-Instruct", dtype="bfloat16")
    ```
    """
    directory = Path(directory)
    check_files(directory)
    config = read_json(directory / "config.json")
    family = _family(directory / "config.json", config)
    fields = Fields(config, directory / "config.json")
    sizes = family.read_config(fields)
    fields.finish()
    cls = family.computing(sizes)
    sizes |= kwargs
    if preprocessor == "auto":
        max_length = config.get(family.length)
        preprocessor = _preprocessor(
            cls.preprocessor_cls, directory, config, max_length
        )
    if not load_weights:
        return cls(backbone=cls.backbone_cls(**sizes), preprocessor=preprocessor)
    tensors = _named(find_tensors(directory), family)

    def make_model():
        model = cls(
            backbone=cls.backbone_cls(**sizes), preprocessor=preprocessor, compile=False
        )
        expected = family.weights(model.backbone).keys()
        _check_tied_head(directory, expected, tensors)
        check_names(directory, expected, tensors.keys())
        return model

    return make_with_weights(
        make_model,
        lambda model: family.weights(model.backbone),
        lambda name: tensors[name](),
        on_weight,
    )


def _family(place, config):
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(
            f"{place}: expected `model_type` to be one of {['gptj', *FAMILIES]}. "
            f"Received: model_type={kind!r}. KerasHub may read it: "
            "keras_hub.models.CausalLM.from_preset(directory). Its logits and its "
            "tokens are not checked here."
        )
    return FAMILIES[kind]


def _preprocessor(cls, directory, config, max_length):
    tokenizer = read_tokenizer(directory, config, max_length)
    if tokenizer is None:
        return None
    return cls(
        tokenizer,
        sequence_length=min(1024, max_length or 1024),
        add_start_token=tokenizer.start_token_id is not None,
    )


def _named(tensors, family):
    """The tensors under their full names, without constants."""
    named, prefix = {}, family.prefix
    for name, read in tensors.items():
        if _CONSTANTS.fullmatch(name):
            continue
        name = family.renamed.get(name, name)
        if not name.startswith(prefix) and not name.startswith("lm_head."):
            name = prefix + name
        named[name] = read
    return named


def _check_tied_head(directory, expected, tensors):
    """Drop a copy of the embedding that is stored as the head."""
    if _HEAD in expected or _HEAD not in tensors:
        return
    embedding = next(n for n in expected if n.endswith(_EMBEDDINGS))
    if embedding in tensors and not np.array_equal(
        tensors[_HEAD](), tensors[embedding]()
    ):
        raise ValueError(
            f"{directory}: `tie_word_embeddings` is true, but {_HEAD!r} is not "
            f"{embedding!r}."
        )
    del tensors[_HEAD]


def _model_type(path):
    check_files(path)
    return read_json(path).get("model_type")
