"""From a KerasHub causal LM to a Hugging Face directory."""

import inspect
import math
from pathlib import Path

import keras_hub

from star_keras.models.general_llama.general_llama_backbone import GeneralLlamaBackbone
from star_keras.models.hugging_face.fields import Fields
from star_keras.models.hugging_face.general_llamas import general_model_type
from star_keras.models.hugging_face.hugging_face_tokenizer import (
    HuggingFaceTokenizer,
)
from star_keras.models.hugging_face.load import FAMILIES
from star_keras.models.hugging_face.tensor_files import (
    numpy_dtype,
    save_tensors,
    write_json,
)
from star_keras.models.hugging_face.tokenizer_files import write_tokenizer
from star_keras.utils.errors import invalid


def save_hugging_face_causal_lm(model, directory, max_file_bytes=2 * 1024**3):
    """Save a KerasHub causal LM as a Hugging Face directory.

    Args:
        model: A `keras_hub.models.CausalLM` of a family that
            `load_hugging_face_causal_lm` reads. LoRA adapters are merged into their
            kernels. The tokenizer is written if it is a `HuggingFaceTokenizer`; the
            ids of the start, end and padding tokens in any case.
        directory: Path of the directory, made if needed.
        max_file_bytes: int. Largest size of a `*.safetensors` file with more than
            one weight. That much is held in memory. Defaults to 2 GiB.

    Raises:
        ValueError: if the model is of another family.
    """
    backbone = model.backbone
    kind = _model_type(backbone)
    family = FAMILIES[kind]
    config = {
        "architectures": [family.architecture],
        "model_type": kind,
        "torch_dtype": str(backbone.token_embedding.embeddings.dtype),
        **family.write_config(backbone),
    }
    _check_config(backbone, family, config)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # Under the older names, which every version of transformers reads.
    older = {new: old for old, new in family.renamed.items()}
    weights = {older.get(k, k): v for k, v in family.weights(backbone).items()}
    sizes = {
        name: math.prod(stored.shape) * numpy_dtype(stored.variables[0]).itemsize
        for name, stored in weights.items()
    }
    save_tensors(directory, sizes, lambda name: weights[name].read(), max_file_bytes)
    tokenizer = model.preprocessor.tokenizer if model.preprocessor else None
    if tokenizer is not None:
        config |= _special_ids(tokenizer)
    if isinstance(tokenizer, HuggingFaceTokenizer):
        if tokenizer.max_sequence_length:
            config.setdefault(family.length, tokenizer.max_sequence_length)
        write_tokenizer(tokenizer, directory)
    write_json(directory / "config.json", config)


def _special_ids(tokenizer):
    """Fields for config.json: transformers puts ids of its own where they lack."""
    ends = getattr(tokenizer, "end_token_ids", None)
    if ends is None:
        names = "end_token_id", "end_token2_id"
        ends = [getattr(tokenizer, name, None) for name in names]
    ends = list(dict.fromkeys(int(i) for i in ends if i is not None))
    start = getattr(tokenizer, "start_token_id", None)
    pad = getattr(tokenizer, "pad_token_id", None)
    return {
        "bos_token_id": None if start is None else int(start),
        "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        "pad_token_id": None if pad is None else int(pad),
    }


def _check_config(backbone, family, config):
    """Refuse a backbone that loading would not restore."""
    sizes = family.read_config(Fields(config, "config.json"))
    cls = family.causal_lm.backbone_cls
    if family.general and not isinstance(backbone, cls):
        cls = family.general.backbone_cls
    parameters = inspect.signature(cls).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.name in dir(backbone)}
    unused = {"dtype", "image_size"}
    if not getattr(backbone, "use_sliding_window_attention", False):
        unused.add("sliding_window_size")
    for name, value in (defaults | sizes).items():
        found = getattr(backbone, name)
        if name == "head_dim":  # `None` is that of equal parts
            equal = backbone.hidden_dim // backbone.num_query_heads
            found, value = found or equal, value or equal
        if name not in unused and found != value:
            raise invalid(
                "model",
                f"a model that `{config['model_type']}` of transformers computes, with "
                f"{name}={value!r}",
                f"{type(backbone).__name__} with {name}={found!r}",
            )


def _model_type(backbone):
    if isinstance(backbone, keras_hub.models.LlamaBackbone):
        return "llama"  # the backbone of Llama 3 is a subclass
    if isinstance(backbone, GeneralLlamaBackbone):
        return general_model_type(backbone)
    for kind, family in FAMILIES.items():
        if isinstance(backbone, family.causal_lm.backbone_cls):
            post_norm = getattr(backbone, "use_post_ffw_norm", False)
            return "gemma2" if kind == "gemma" and post_norm else kind
    raise invalid(
        "model",
        f"a causal LM of one of the families {sorted(FAMILIES)}",
        type(backbone).__name__,
    )
