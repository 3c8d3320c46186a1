import json

import pytest

from star_keras.models import load_causal_lm, save_hugging_face
from star_keras.models.hugging_face.fields import Fields
from tests.models.hugging_face.cases import copied

NO_ROTATION = {"partial_rotary_factor": 0.0}
YARN = {"rope_type": "yarn", "factor": 4.0}
WHOLE_YARN = YARN | {"original_max_position_embeddings": 64}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


@pytest.mark.parametrize(
    "name, field, value, message",
    [
        ("llama_tied", "hidden_act", "gelu", "only as 'silu'"),
        ("llama_tied", "attention_dropout", 0.1, "only as 0.0"),
        ("llama_tied", "rope_interleaved", True, "only as False"),
        ("llama_tied", "rope_parameters", DYNAMIC, "rope_type` only as 'default' or"),
        ("llama_tied", "rope_parameters", YARN, "Missing: .'original_max"),
        ("qwen2", "rope_scaling", WHOLE_YARN | {"mscale": 1.0}, "Unknown: .'mscale'"),
        ("qwen2", "rope_scaling", WHOLE_YARN | {"attention_factor": 2.0}, "only as 1."),
        ("qwen3", "rope_scaling", WHOLE_YARN | {"factor": 0.5}, "only as 'at least 1'"),
        ("qwen3", "rope_scaling", WHOLE_YARN | {"beta_fast": 1}, "more than beta_slow"),
        ("qwen3", "rope_scaling", WHOLE_YARN | {"truncate": 1}, "true or false"),
        ("llama_tied", "rope_parameters", LLAMA3, "Missing: .'original_max"),
        (
            "llama_tied",
            "rope_parameters",
            {"rope_type": "default", "factor": 2.0},
            "Unknown: .'factor'",
        ),
        (
            "llama_tied",
            "rope_parameters",
            {"partial_rotary_factor": 0.5},
            "partial_rotary_factor` only as 1.0",
        ),
        ("llama_tied", "quantization_config", {"bits": 4}, "only as None"),
        ("llama_tied", "residual_multiplier", 0.2, "is not known"),
        ("llama_tied", "vocab_size", ..., "lacks the field `vocab_size`"),
        ("mistral", "hidden_act", "relu", "only as 'silu'"),
        ("mistral", "rope_parameters", DYNAMIC, "only as 'default' or 'linear'"),
        ("qwen2", "use_mrope", True, "only as False"),
        ("qwen2", "layer_types", ["full_attention", "sliding_attention"], "layer_ty"),
        ("qwen3", "layer_types", ["sliding_attention"] * 2, "only as 'full_attention'"),
        ("gemma", "rms_norm_eps", 1e-5, "only as 1e-06"),
        ("gemma", "hidden_act", "silu", "only as 'gelu_pytorch_tanh' or"),
        ("gemma", "attention_bias", True, "only as False"),
        ("gemma", "use_bidirectional_attention", True, "only as None or False"),
        ("gemma", "tie_word_embeddings", False, "only as True"),
        ("gemma2", "query_pre_attn_scalar", 144, "only as 16 or 8"),
        ("gemma2", "hidden_activation", "gelu", "only as 'gelu_pytorch_tanh'"),
        ("gemma2", "layer_types", ["full_attention"] * 2, "layer_types"),
        ("gemma3", "sliding_window_pattern", 2, "only as 6"),
        ("gemma3", "layer_types", ["full_attention"] * 7, "layer_types"),
        ("gemma3", "rope_theta", 10000.0, "rope_theta` only as 1000000.0"),
        ("gemma3", "rope_local_base_freq", 1e6, "only as 10000.0"),
        ("gemma3", "query_pre_attn_scalar", 6, "only as 8"),
        ("gemma3", "attn_logit_softcapping", 50.0, "only as None"),
        ("gpt_neox", "rope_parameters", NO_ROTATION, "factor` only as 'a share above"),
        ("gemma3", "rope_scaling", YARN, "only as 'default' or 'linear'"),
        ("mixtral", "head_dim", 12, "only as None or 8"),
        ("mixtral", "tie_word_embeddings", True, "only as False"),
        ("mixtral", "router_jitter_noise", 0.1, "only as 0.0"),
        ("mixtral", "num_experts_per_tok", 4, "at most 3"),
        ("mixtral", "num_local_experts", 0, "an integer of at least 1"),
        ("mixtral", "router_aux_loss_coef", -1, "a finite number of at least 0"),
        ("mixtral", "rope_parameters", YARN, "only as 'default' or 'linear'"),
        ("phi3", "resid_pdrop", 0.1, "only as 0.0"),
        ("phi3", "rope_parameters", {"rope_type": "longrope"}, "only as 'default'"),
        ("phi3", "rope_scaling", WHOLE_YARN, "only as 'default'"),
        ("smollm3", "use_sliding_window", True, "only as False"),
        ("smollm3", "no_rope_layers", [1], "a 0 or a 1 for each of the 2 layers"),
        ("smollm3", "no_rope_layers", [1, 2], "a 0 or a 1 for each of the 2"),
        ("smollm3", "no_rope_layers", 1, "a list of integers"),
        ("smollm3", "no_rope_layer_interval", 0, "an integer of at least 1"),
        ("smollm3", "no_rope_layer_interval", "4", "an integer of at least 1"),
        ("smollm3", "layer_types", ["full_attention"], "only as None or"),
        ("gpt_neox", "hidden_act", "relu", "only as 'gelu' or"),
        ("gpt_neox", "use_parallel_residual", False, "only as True"),
        ("gpt_neox", "attention_bias", False, "only as True"),
        ("gpt_neox", "hidden_dropout", 0.1, "only as 0.0"),
        ("gpt_neox", "rope_parameters", YARN, "only as 'default'"),
        ("gpt2", "activation_function", "relu", "only as 'gelu_new' or"),
        ("gpt2", "layer_norm_epsilon", 1e-6, "only as 1e-05"),
        ("gpt2", "scale_attn_weights", False, "only as True"),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True, "only as False"),
        ("gpt2", "attn_pdrop", 0.0, "only as 0.1"),
        ("gpt2", "add_cross_attention", True, "only as None or False"),
        ("gpt2", "tie_word_embeddings", False, "only as True"),
    ],
)
def test_what_is_not_computed_is_refused(name, field, value, message, tmp_path):
    directory = copied(name, tmp_path, **{field: value})
    with pytest.raises(ValueError, match=rf"config.json.*{message}") as error:
        load_causal_lm(directory)
    assert field in str(error.value)


@pytest.mark.parametrize("name", ("gemma", "gemma2"))
def test_another_base_of_gemma_is_refused(name, tmp_path):
    for changes in (
        {"rope_parameters": {"rope_theta": 1e6}},
        {"rope_parameters": ..., "rope_theta": 1e6},
    ):
        directory = copied(name, tmp_path / str(len(changes)), **changes)
        with pytest.raises(ValueError, match="`rope_theta` only as 10000.0"):
            load_causal_lm(directory)


@pytest.mark.parametrize(
    "changes, layers",
    [
        ({"max_window_layers": 1}, (1,)),
        ({"max_window_layers": 0, "sliding_window": None}, None),
        ({"max_window_layers": 0, "use_sliding_window": False}, None),
        ({"max_window_layers": 2}, None),
        ({"layer_types": ["sliding_attention", "full_attention"]}, (0,)),
    ],
)
def test_windows_of_qwen_are_in_the_layers_that_ask_for_them(changes, layers, tmp_path):
    default = {"use_sliding_window": True, "sliding_window": 4, "layer_types": ...}
    changes = default | changes
    directory = copied("qwen2", tmp_path, **changes)
    backbone = load_causal_lm(directory, load_weights=False).backbone
    assert getattr(backbone, "window_layers", None) == layers
    if layers:
        assert backbone.sliding_window == 4


@pytest.mark.parametrize("name", ("llama_tied", "mistral", "qwen3", "smollm3"))
def test_yarn_goes_back_to_the_type_that_it_came_from(name, tmp_path):
    changes = {"rope_scaling": WHOLE_YARN, "rope_parameters": ..., "head_dim": 8}
    directory = copied(name, tmp_path, **changes)
    model = load_causal_lm(directory, load_weights=False)
    assert model.backbone.rope_yarn["factor"] == 4
    save_hugging_face(model, tmp_path / "saved")
    kept = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (
        kept["model_type"]
        == json.loads((directory / "config.json").read_text())["model_type"]
    )
    assert kept["rope_scaling"].items() >= WHOLE_YARN.items()


# What released models say, beside their sizes.
RELEASED = {
    "Llama 3.2": {
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "head_dim": 8,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    },
    "SmolLM2": {
        "model_type": "llama",
        "is_llama_config": True,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    },
    "Mistral 7B v0.3": {
        "model_type": "mistral",
        "sliding_window": None,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
    },
    "Qwen 2.5": {
        "model_type": "qwen2",
        "max_window_layers": 21,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "use_mrope": False,
        "use_sliding_window": False,
    },
    "Qwen 2.5 with YaRN": {
        "model_type": "qwen2",
        "max_window_layers": 21,
        "rope_scaling": {
            "factor": 4.0,
            "original_max_position_embeddings": 32768,
            "type": "yarn",
        },
        "rope_theta": 1000000.0,
        "sliding_window": 131072,
        "use_sliding_window": False,
    },
    "Qwen 3": {
        "model_type": "qwen3",
        "attention_bias": False,
        "head_dim": 128,
        "max_window_layers": 28,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "Gemma": {
        "model_type": "gemma",
        "head_dim": 256,
        "hidden_act": "gelu",
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
    },
    "Gemma 2": {
        "model_type": "gemma2",
        "attn_logit_softcapping": 50.0,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    },
    "Gemma 3": {
        "model_type": "gemma3_text",
        "attn_logit_softcapping": None,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": None,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
    },
    "Pythia": {
        "model_type": "gpt_neox",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
    },
    "Phi 3 mini": {
        "model_type": "phi3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"},
        "embd_pdrop": 0.0,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": 2047,
        "tie_word_embeddings": False,
    },
    "Mixtral 8x7B": {
        "model_type": "mixtral",
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
        "output_router_logits": False,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.02,
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    "SmolLM 3": {
        "model_type": "smollm3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "layer_types": ["full_attention"] * 2,
        "max_window_layers": 28,
        "mlp_bias": False,
        "no_rope_layer_interval": 4,
        "no_rope_layers": [1, 1],
        "rope_scaling": None,
        "rope_theta": 5000000.0,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "GPT-2": {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "layer_norm_epsilon": 1e-05,
        "n_ctx": 1024,
        "n_positions": 1024,
        "n_special": 0,
        "predict_special_tokens": True,
        "resid_pdrop": 0.1,
        "summary_type": "cls_index",
        "task_specific_params": {"text-generation": {"do_sample": True}},
    },
}
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
GPT2_SIZES = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}


@pytest.mark.parametrize("name", RELEASED)
def test_configurations_of_released_models_are_read(name, tmp_path):
    sizes = GPT2_SIZES if name == "GPT-2" else dict(SIZES)
    if name == "Pythia":
        del sizes["num_key_value_heads"]  # it has no groups
    (tmp_path / "config.json").write_text(json.dumps(RELEASED[name] | sizes))
    model = load_causal_lm(tmp_path, load_weights=False)
    assert model.backbone.vocabulary_size == 64
    assert model.backbone.num_layers == 2


@pytest.mark.parametrize(
    "name, epsilon",
    [
        ("llama_tied", 1e-6),
        ("mistral", 1e-6),
        ("mixtral", 1e-5),
        ("phi3", 1e-5),
        ("smollm3", 1e-6),
    ],
)
def test_without_an_epsilon_it_is_the_default_of_transformers(name, epsilon, tmp_path):
    directory = copied(name, tmp_path, rms_norm_eps=...)
    backbone = load_causal_lm(directory, load_weights=False).backbone
    assert backbone.layer_norm_epsilon == epsilon


def test_the_load_of_experts_is_in_the_loss_as_in_transformers(tmp_path):
    for has_loss, coefficient in ((True, 0.01), (False, 0.0)):
        directory = copied(
            "mixtral", tmp_path / str(has_loss), output_router_logits=has_loss
        )
        backbone = load_causal_lm(directory, load_weights=False).backbone
        assert backbone.router_aux_loss_coef == coefficient


def test_bookkeeping_is_ignored():
    fields = Fields(
        {
            "_name_or_path": "x",
            "torch_dtype": "bfloat16",
            "transformers_version": "4.40.0",
            "transformers.js_config": {"dtype": "q4"},
            "is_llama_config": True,
            "image_token_id": 3,
            "is_encoder_decoder": False,
            "id2label": {"0": "LABEL_0"},
        },
        "config.json",
    )
    fields.finish()


def test_a_number_of_float32_is_the_number():
    fields = Fields({"rms_norm_eps": 9.999999974752427e-07}, "config.json")
    fields.only("rms_norm_eps", 1e-6)
    fields.finish()


def test_a_null_field_is_a_missing_one():
    fields = Fields({"head_dim": None}, "config.json")
    assert fields.take("head_dim", 3) == 3
    with pytest.raises(ValueError, match="config.json lacks the field `vocab_size`"):
        fields.take("vocab_size")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("smollm3", "use_sliding_window"),
        ("gemma", "attention_bias"),
        ("mixtral", "tie_word_embeddings"),
    ],
)
def test_null_is_false_where_only_false_is_supported(name, field, tmp_path):
    directory = copied(name, tmp_path, **{field: None})
    assert load_causal_lm(directory, load_weights=False)
    with pytest.raises(ValueError, match="only as True"):
        Fields({"x": None}, "config.json").only("x", True)
