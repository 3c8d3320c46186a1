"""The values of fields in the JSON files of a Hugging Face directory: types, bounds."""

import math
import re
from collections.abc import Callable

# A field with one of these names, its rule, and whether a value fits it. Elsewhere
# null is as good as no field.
_Rules = tuple[tuple[str, str, Callable], ...]


def _is_count(value, at_least=1):
    return type(value) is int and value >= at_least


def _is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def _is_list(value, kind):
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _is_token(value):
    if isinstance(value, dict):
        value = value.get("content")
    return isinstance(value, str)


_NEEDED_SIZES = (
    "vocab_size|hidden_size|intermediate_size|max_position_embeddings"
    "|num_attention_heads|num_hidden_layers|n_layer|n_head|n_embd|n_positions|n_ctx"
    "|rotary_dim"
)
_OPTIONAL_SIZES = (
    "n_inner|head_dim|num_key_value_heads|sliding_window|no_rope_layer_interval"
    "|original_max_position_embeddings|num_local_experts|num_experts_per_tok"
)
_NUMBERS = (
    "rms_norm_eps|layer_norm_eps|layer_norm_epsilon|rope_theta|rope_local_base_freq"
    "|rotary_emb_base|query_pre_attn_scalar|attn_logit_softcapping"
    "|final_logit_softcapping|factor|low_freq_factor|high_freq_factor"
    "|beta_fast|beta_slow|attention_factor"
)
_SHARES = (
    "resid_pdrop|embd_pdrop|attn_pdrop|attention_dropout|hidden_dropout|rotary_pct"
    "|partial_rotary_factor"
)
_FLAGS = (
    "tie_word_embeddings|attention_bias|mlp_bias|use_sliding_window"
    "|output_router_logits|truncate"
)
_TEXTS = "hidden_act|hidden_activation|activation_function|rope_type|type"

_IDS: _Rules = (
    (
        "(bos|eos|pad)_token_id",
        "an integer or a list of integers",
        lambda value: type(value) is int or _is_list(value, int),
    ),
)
_CONFIG: _Rules = (
    (_OPTIONAL_SIZES, "an integer of at least 1", _is_count),
    (
        "max_window_layers",
        "an integer of at least 0",
        lambda value: _is_count(value, at_least=0),
    ),
    (_NUMBERS, "a finite number above 0", lambda v: _is_number(v) and v > 0),
    (
        "router_aux_loss_coef",
        "a finite number of at least 0",
        lambda value: _is_number(value) and value >= 0,
    ),
    (_SHARES, "a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1),
    (_FLAGS, "true or false", lambda value: type(value) is bool),
    (_TEXTS, "a string", lambda value: isinstance(value, str)),
    ("layer_types", "a list of strings", lambda value: _is_list(value, str)),
    ("no_rope_layers", "a list of integers", lambda value: _is_list(value, int)),
    *_IDS,
)
_ROTATION = "rope_scaling", "rope_parameters"
_TOKENS: _Rules = (
    (
        "(bos|eos|pad)_token",
        'a string, or an object with a string "content"',
        _is_token,
    ),
)
_BY_FILE = {
    "generation_config.json": _IDS,
    "tokenizer_config.json": _TOKENS,
    "special_tokens_map.json": _TOKENS,
}


def check_fields(name: str, content: dict):
    """Check the values of known fields. No-op for a file of another kind.

    Args:
        name: Name of the file.
        content: Its fields.

    Raises:
        ValueError: if a value is of another type or out of bounds; names the field,
            its rule and the value.
    """
    if name == "config.json" and "model_type" in content:
        needed = (_NEEDED_SIZES, "an integer of at least 1", _is_count)
        for field in content:
            _check(field, field, content, (needed,), null=False)
        _check_all("", content, _CONFIG)
        for field in _ROTATION:
            _check_rotation(field, content.get(field))
    _check_all("", content, _BY_FILE.get(name, ()))


def _check_rotation(name, value):
    """Check an object of the rotary embedding, which may hold one a kind of layers."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise _unfit(name, "an object or null", value)
    _check_all(f"{name}.", value, _CONFIG)
    for field in ("full_attention", "sliding_attention"):
        _check_rotation(f"{name}.{field}", value.get(field))


def _check_all(prefix, content, rules):
    for field in content:
        _check(prefix + field, field, content, rules, null=True)


def _check(name, field, content, rules, null):
    value = content[field]
    for names, rule, fits in rules:
        is_free = value is None and null
        if re.fullmatch(names, field) and not is_free and not fits(value):
            raise _unfit(name, rule, value)


def _unfit(name, rule, value):
    return ValueError(f"the field `{name}` is {value!r}. Expected {rule}.")
