"""The fields of a config.json, each read or refused."""

import math
import re

# Says nothing about the numbers: bookkeeping, defaults of generation and training.
_BOOKKEEPING = re.compile(
    r"_.*|architectures|auto_map|torch_dtype|dtype|transformers_version|model_type"
    r"|transformers\.js_config|use_cache|cache_implementation|.*_token_ids?"
    r"|initializer_range|output_attentions|output_hidden_states|output_past"
    r"|return_dict|use_return_dict|torchscript|tf_legacy_loss|use_bfloat16"
    r"|pretraining_tp|chunk_size_feed_forward|problem_type|finetuning_task|id2label"
    r"|label2id|task_specific_params|summary_.*|is_llama_config|unsloth_.*"
    r"|gradient_checkpointing|tokenizer_class|prefix|n_ctx|reorder_and_upcast_attn"
    r"|n_special|predict_special_tokens|is_decoder"
    r"|max_length|min_length|do_sample|num_beams|temperature|top_k|top_p"
    r"|repetition_penalty|length_penalty|num_return_sequences"
)
# What no model here can do.
_NEVER = (
    "quantization_config",
    "is_encoder_decoder",
    "add_cross_attention",
    "cross_attention_hidden_size",
    "pruned_heads",
)
_OF_YARN = "beta_fast", "beta_slow", "truncate", "attention_factor"
_NEEDED = object()


class Fields:
    """The fields of a config.json.

    A family takes the fields that it honours and names those that it accepts at one
    value alone. What is left must be bookkeeping.

    Args:
        config: dict. The fields.
        source: Where they come from, for errors.
    """

    def __init__(self, config, source):
        self.source = source
        self._left = dict(config)

    def __contains__(self, name):
        """Whether a field is given and not taken yet."""
        return name in self._left

    def take(self, name, default=_NEEDED):
        """The value of a field that the family honours.

        Args:
            name: The field.
            default: Value without the field, or if it is null.

        Raises:
            ValueError: if the field is missing and has no default.
        """
        value = self._left.pop(name, None)
        if value is None:
            if default is _NEEDED:
                raise ValueError(f"{self.source} lacks the field `{name}`.")
            return default
        return value

    def only(self, name, *valid):
        """Take a field that is supported at some values alone. Null is false.

        Args:
            name: The field. It may be missing.
            *valid: These values.

        Raises:
            ValueError: if it has another value.
        """
        if name in self._left:
            value = self._left.pop(name)
            is_false = value is None and any(other is False for other in valid)
            if not is_false and not any(_equal(value, other) for other in valid):
                raise self.refused(name, value, valid)

    def unused(self, *names):
        """Drop fields that say nothing in this family."""
        for name in names:
            self._left.pop(name, None)

    def refused(self, name, value, valid):
        """The error of a field whose value is not supported."""
        rule = " or ".join(map(repr, valid))
        return ValueError(
            f"{self.source}: KerasHub's model supports `{name}` only as {rule}. "
            f"Received: {name}={value!r}."
        )

    def finish(self):
        """Check that all fields that matter were taken.

        Raises:
            ValueError: if a field is left that is not bookkeeping.
        """
        for name in _NEVER:
            self.only(name, None, False, {}, [])
        left = sorted(n for n in self._left if not _BOOKKEEPING.fullmatch(n))
        if left:
            name = left[0]
            raise ValueError(
                f"{self.source}: the field `{name}` is not known, so whether it "
                f"changes the numbers is not either. Received: "
                f"{name}={self._left[name]!r}. Unknown fields: {left}."
            )


def _equal(value, other):
    if isinstance(value, float) and isinstance(other, float):
        return math.isclose(value, other, rel_tol=1e-6)  # GGUF has float32
    return value == other


def take_rope(fields, *, types=("default",), theta=10000.0, partial=None):
    """The rotary embedding of a config.json, in its older and its newer form.

    Args:
        fields: The `Fields`.
        types: Types that the family supports.
        theta: The default of the base.
        partial: The default of the rotated share of a head, `partial_rotary_factor`,
            which is then among the parameters. Defaults to `None`: all is rotated.

    Returns:
        `(theta, type, parameters)`: the base; `"default"`, `"linear"`, `"llama3"` or
        `"yarn"`; and the parameters of the type.

    Raises:
        ValueError: if another type is given, an unknown parameter, or one of YaRN that
            is not supported.
    """
    theta = fields.take("rope_theta", theta)
    given = fields.take("rope_scaling", None)
    newer = fields.take("rope_parameters", None)
    name = "rope_scaling" if given else "rope_parameters"
    return rope(fields, name, given or newer, types, theta, partial)


def rope(fields, name, given, types, theta, partial=None):
    """As `take_rope`, of the value `given` of the field `name`."""
    left = {k: v for k, v in (given or {}).items() if v is not None}
    theta = left.pop("rope_theta", theta)
    older = left.pop("type", "default")  # the name before "rope_type"
    kind = left.pop("rope_type", older)
    if kind not in types:
        raise fields.refused(f"{name}.rope_type", kind, types)
    share = left.pop("partial_rotary_factor", 1.0 if partial is None else partial)
    if not share or (partial is None and share != 1.0):
        valid = (1.0,) if partial is None else ("a share above 0",)
        raise fields.refused(f"{name}.partial_rotary_factor", share, valid)
    names = {
        "default": (),
        "linear": ("factor",),
        "llama3": (
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
        ),
        "yarn": ("factor", "original_max_position_embeddings"),
    }[kind]
    missing = [n for n in names if n not in left]
    optional = _OF_YARN if kind == "yarn" else ()
    unknown = sorted(left.keys() - {*names, *optional})
    if missing or unknown:
        raise ValueError(
            f"{fields.source}: expected `{name}` of type {kind!r} to have the fields "
            f"{list(names)}. Missing: {missing}. Unknown: {unknown}."
        )
    if kind == "yarn":
        left = _with_defaults_of_yarn(fields, name, left)
    if partial is not None:
        left["partial_rotary_factor"] = share
    return theta, kind, left


def _with_defaults_of_yarn(fields, name, given):
    yarn = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True} | given
    if yarn["factor"] < 1:
        raise fields.refused(f"{name}.factor", yarn["factor"], ("at least 1",))
    usual = 0.1 * math.log(yarn["factor"]) + 1
    found = yarn.pop("attention_factor", usual)
    if not _equal(float(found), usual):
        raise fields.refused(f"{name}.attention_factor", found, (usual,))
    if yarn["beta_fast"] <= yarn["beta_slow"]:
        rule = f"more than beta_slow={yarn['beta_slow']}"
        raise fields.refused(f"{name}.beta_fast", yarn["beta_fast"], (rule,))
    return yarn
