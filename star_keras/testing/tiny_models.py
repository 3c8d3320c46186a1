"""A model of each family, so small that it trains in a test."""

import numpy as np
from keras_hub import models as hub

from star_keras.models import GPTJCausalLM, packed_causal_lm
from star_keras.models.general_llama.general_llama_causal_lm import GeneralLlamaCausalLM
from star_keras.models.pythia.pythia_causal_lm import PythiaCausalLM
from star_keras.testing.tiny_gpt_j import byte_tokenizer

_GROUPED = {
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
}
_PLAIN = {
    "num_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "max_sequence_length": 256,
}
_GEMMA = {"head_dim": 16, "layer_norm_epsilon": 1e-5}
_LLAMA3_ROPE = {
    "rope_frequency_adjustment_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_pretraining_sequence_length": 32,
}

# Causal LM, and the sizes that set the family apart. Two layers take twice the time to
# compile: they are for blocks that differ, and two families.
_FAMILIES = {
    "gpt_j": (GPTJCausalLM, {**_PLAIN, "rotary_dim": 8, "num_layers": 2}),
    "gpt2": (hub.GPT2CausalLM, {**_PLAIN, "dropout": 0.0}),
    "opt": (hub.OPTCausalLM, {**_PLAIN, "dropout": 0.0}),
    "llama": (hub.LlamaCausalLM, {**_GROUPED, "num_layers": 2}),
    "llama3": (
        hub.Llama3CausalLM,
        {**_GROUPED, **_LLAMA3_ROPE, "tie_word_embeddings": True},
    ),
    "mistral": (hub.MistralCausalLM, {**_GROUPED, "sliding_window": 7}),
    "qwen": (hub.QwenCausalLM, _GROUPED),
    "qwen3": (
        hub.Qwen3CausalLM,
        {**_GROUPED, "head_dim": 16, "sliding_window_size": None},
    ),
    "gemma": (hub.GemmaCausalLM, {**_GROUPED, **_GEMMA}),
    "gemma2": (
        hub.GemmaCausalLM,
        {
            **_GROUPED,
            **_GEMMA,
            "num_layers": 2,
            "query_head_dim_normalize": False,
            "use_post_ffw_norm": True,
            "use_post_attention_norm": True,
            "attention_logit_soft_cap": 2.0,
            "final_logit_soft_cap": 3.0,
            "use_sliding_window_attention": True,
            "sliding_window_size": 7,
        },
    ),
    "gemma3": (
        hub.Gemma3CausalLM,
        {
            **_GROUPED,
            **_GEMMA,
            "image_size": None,
            "use_post_ffw_norm": True,
            "use_post_attention_norm": True,
            "use_sliding_window_attention": True,
            "sliding_window_size": 7,
        },
    ),
    "mixtral": (
        hub.MixtralCausalLM,
        {
            **_GROUPED,
            "num_experts": 4,
            "sliding_window": 7,
            # The loss of the experts' load is no sum over rows.
            "router_aux_loss_coef": 0.0,
        },
    ),
    "phi3": (hub.Phi3CausalLM, _GROUPED),
    "gpt_neo_x": (hub.GPTNeoXCausalLM, {**_PLAIN, "rotary_percentage": 0.5}),
    "smollm3": (
        hub.SmolLM3CausalLM,
        {
            "num_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "hidden_dim": 32,
            "intermediate_dim": 64,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "rope_layer_enabled_list": [True, False],
            "layer_types": ["full_attention"] * 2,
            "mlp_bias": False,
            "layer_norm_epsilon": 1e-6,
            "max_position_embeddings": 256,
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
        },
    ),
}

# Of our own, for what KerasHub's classes lack.
_FAMILIES |= {
    "general_llama": (
        GeneralLlamaCausalLM,
        {
            **_GROUPED,
            **_LLAMA3_ROPE,
            "num_layers": 2,
            "head_dim": 12,
            "attention_bias": True,
            "attention_output_bias": True,
            "feedforward_bias": True,
            "query_key_norm": True,
            "sliding_window": 7,
            "window_layers": (1,),
            "layers_without_rope": (0,),
        },
    ),
    "pythia": (
        PythiaCausalLM,
        {
            "num_heads": 2,
            "hidden_dim": 32,
            "intermediate_dim": 64,
            "rotary_percentage": 0.5,
        },
    ),
}

FAMILIES = tuple(_FAMILIES)


def tiny_causal_lm(family: str, *, packed: bool = True, seed: int = 0, **sizes):
    """An uncompiled causal LM with random weights, the same for the same seed.

    No weight is zero or one, norms and biases included.

    Args:
        family: One of `FAMILIES`.
        packed: Whether to return a `star_keras.models.PackedCausalLM`.
        seed: Seed of the weights.
        **sizes: Arguments of the backbone.
    """
    cls, own = _FAMILIES[family]
    backbone = cls.backbone_cls(
        **{"vocabulary_size": 258, "num_layers": 1, **own, **sizes}
    )
    preprocessor = cls.preprocessor_cls(
        byte_tokenizer(), sequence_length=64, add_start_token=False
    )
    model = cls(backbone=backbone, preprocessor=preprocessor, compile=False)
    generator = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        noise = generator.standard_normal(variable.shape)
        if len(variable.shape) > 1:
            noise *= 2 / np.sqrt(np.prod(variable.shape[:-1]))
            if "embedding" in variable.path:
                noise *= 0.5 * np.sqrt(variable.shape[0])
            variable.assign(noise)
        else:
            variable.assign(variable + 0.2 * noise)
    return packed_causal_lm(model) if packed else model
