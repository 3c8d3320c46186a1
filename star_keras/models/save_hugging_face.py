"""Saves a causal LM as a Hugging Face directory."""

from star_keras.models.gpt_j.gpt_j_causal_lm import GPTJCausalLM
from star_keras.models.gpt_j.gpt_j_hugging_face import save_hugging_face_gpt_j
from star_keras.models.hugging_face.save import save_hugging_face_causal_lm


def save_hugging_face(model, directory, max_file_bytes=2 * 1024**3):
    """Save a causal LM as a Hugging Face directory, which transformers loads.

    Args:
        model: A `GPTJCausalLM`, or a `keras_hub.models.CausalLM` of a family that
            `load_causal_lm` reads from Hugging Face directories. LoRA adapters are
            merged into their kernels.
        directory: Path of the directory, made if needed.
        max_file_bytes: int. Largest size of a `*.safetensors` file with more than
            one weight. That much is held in memory. Defaults to 2 GiB.

    Raises:
        ValueError: if the model is of another family, or configured as no model of
            transformers is.
    """
    if isinstance(model, GPTJCausalLM):
        save_hugging_face_gpt_j(model, directory, max_file_bytes)
    else:
        save_hugging_face_causal_lm(model, directory, max_file_bytes)
