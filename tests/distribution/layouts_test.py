import math
import re
from types import SimpleNamespace

import jax
import keras
import keras_hub
import pytest

from star_keras.distribution import CausalLMParallel, causal_lm_layout_map
from star_keras.models import GPTJBackbone, GPTJCausalLM

hub = keras_hub.models

# Real sizes, with layers left out, and the embedding's and the untied head's
# number of each family.
LLAMA_3_8B = {
    "vocabulary_size": 128256,
    "num_layers": 2,
    "num_query_heads": 32,
    "num_key_value_heads": 8,
    "hidden_dim": 4096,
    "intermediate_dim": 14336,
}
GEMMA_2_9B = {
    "vocabulary_size": 256000,
    "num_layers": 2,
    "num_query_heads": 16,
    "num_key_value_heads": 8,
    "hidden_dim": 3584,
    "intermediate_dim": 28672,
    "head_dim": 256,
}
GEMMA_2B = {
    **GEMMA_2_9B,
    "num_query_heads": 8,
    "num_key_value_heads": 1,
    "hidden_dim": 2048,
    "intermediate_dim": 32768,
}
QWEN_7B = {
    "vocabulary_size": 152064,
    "num_layers": 2,
    "num_query_heads": 28,
    "num_key_value_heads": 4,
    "hidden_dim": 3584,
    "intermediate_dim": 18944,
}
GPT_2 = {
    "vocabulary_size": 50257,
    "num_layers": 2,
    "num_heads": 12,
    "hidden_dim": 768,
    "intermediate_dim": 3072,
    "max_sequence_length": 1024,
}


def hub_model(name, sizes, **kwargs):
    backbone = getattr(hub, f"{name}Backbone")(**sizes, **kwargs)
    return getattr(hub, f"{name}CausalLM")(backbone=backbone, preprocessor=None)


def with_lora(model):
    model.backbone.enable_lora(4)
    return model


FAMILIES = {
    "GPT-J": lambda: GPTJCausalLM(GPTJBackbone.gpt_j_6b(num_layers=2), compile=False),
    "GPT-J with LoRA": lambda: with_lora(
        GPTJCausalLM(GPTJBackbone.gpt_j_6b(num_layers=2), compile=False)
    ),
    "GPT-2": lambda: hub_model("GPT2", GPT_2),
    "Llama 3": lambda: hub_model("Llama3", LLAMA_3_8B, tie_word_embeddings=False),
    "Mistral": lambda: hub_model("Mistral", LLAMA_3_8B),
    "Gemma": lambda: hub_model("Gemma", GEMMA_2B),
    "Gemma 2": lambda: hub_model(
        "Gemma", GEMMA_2_9B, use_post_ffw_norm=True, use_post_attention_norm=True
    ),
    "Gemma 3": lambda: hub_model(
        "Gemma3", GEMMA_2_9B, image_size=None, vision_encoder=None
    ),
    "Qwen 2.5": lambda: hub_model("Qwen", QWEN_7B),
    "Qwen 3": lambda: hub_model(
        "Qwen3", {**QWEN_7B, "head_dim": 128, "tie_word_embeddings": False}
    ),
}

# Every variable of these models, and every slot of their optimizer, is in one
# of the two lists. In a slot's name `/` is `_`, and its own name comes last.
SPLIT = {
    "token_embedding.embeddings": ["model", None],
    "token_embedding.reverse_embeddings": [None, "model"],
    "lm_head.kernel": [None, "model"],
    "lm_head.bias": ["model"],
    r"transformer_layer_\d+.self_attention.(query|key|value).kernel": [
        None,
        "model",
        None,
    ],
    r"transformer_layer_\d+.self_attention.(query|key|value).bias": ["model", None],
    r"decoder_block_\d+.attention.(query|key|value).kernel": ["model", None, None],
    r".*.attention_output.kernel": ["model", None, None],
    r".*.feedforward_(intermediate|gate)_dense.kernel": [None, "model"],
    r".*.feedforward_intermediate_dense.bias": ["model"],
    r".*.feedforward_output_dense.kernel": ["model", None],
    r".*.ffw_gating(_2)?.kernel": [None, "model"],
    r".*.ffw_linear.kernel": ["model", None],
}
REPLICATED = (
    r".*(norm|normalization).(gamma|beta|scale)",
    r".*.(feedforward_output_dense|attention_output).bias",
    r".*seed_generator_state",
    "iteration",
    "learning_rate",
    "position_embedding.embeddings",
    r".*.(query|key|value).lora_kernel_[ab]",
)
# Where a size does not divide by 4.
OTHERWISE = {
    "GPT-2": {"token_embedding.embeddings": [None, "model"]},
    "Gemma": {r"decoder_block_\d+.attention.(key|value).kernel": [None] * 3},
}


def expected_axes(path, family=None):
    """Mesh axes of a variable; none of a replicated one."""
    name = re.sub("^adam/", "", path)
    name = re.sub("_(momentum|velocity)$", "", name)
    for pattern, axes in OTHERWISE.get(family, {}).items():
        if re.fullmatch(pattern, name):
            return axes
    found = [axes for pattern, axes in SPLIT.items() if re.fullmatch(pattern, name)]
    found += [[] for pattern in REPLICATED if re.fullmatch(pattern, name)]
    (axes,) = found
    return axes


def shapes_of(make):
    """Shapes by path, of weights and optimizer slots that are never made."""
    shapes = {}

    def trace():
        model = make()
        optimizer = keras.optimizers.Adam(name="adam")
        optimizer.build(model.trainable_variables)
        variables = model.variables + optimizer.variables
        shapes.update({v.path: tuple(v.shape) for v in variables})
        return [variable.value for variable in variables]

    jax.eval_shape(trace)
    return shapes


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param, shapes_of(FAMILIES[request.param])


def mesh(batch, model):
    devices = [f"cpu:{i}" for i in range(batch * model)]
    return keras.distribution.DeviceMesh((batch, model), ["batch", "model"], devices)


def layouts(shapes, batch, model, **kwargs):
    distribution = CausalLMParallel(mesh(batch, model), **kwargs)
    found = {
        path: list(
            distribution.get_variable_layout(
                SimpleNamespace(path=path, shape=shape)
            ).axes
        )
        for path, shape in shapes.items()
    }
    distribution.check_layouts()
    return found


def test_every_variable_is_split_over_model_or_meant_to_be_replicated(family):
    name, shapes = family
    for path, axes in layouts(shapes, 2, 4).items():
        expected = expected_axes(path, name) or [None] * len(shapes[path])
        assert axes == expected, path


def test_zero_splits_every_large_variable_over_batch_too(family):
    name, shapes = family
    plain = layouts(shapes, 8, 4)
    for path, axes in layouts(shapes, 8, 4, zero=True).items():
        if len(shapes[path]) < 2:
            assert axes == plain[path]
            continue
        if name == "GPT-2" and "token_embedding" in path:  # 50,257 x 768
            assert axes == [None, "model"]
            continue
        at = axes.index("batch")
        assert shapes[path][at] % 8 == 0
        assert axes[:at] + [None] + axes[at + 1 :] == plain[path]
        # The first that can be.
        assert not any(
            a is None and n % 8 == 0 for a, n in zip(axes[:at], shapes[path])
        )


def test_each_device_has_its_share_of_gpt_j_6b():
    shapes = shapes_of(
        lambda: GPTJCausalLM(GPTJBackbone.gpt_j_6b(num_layers=28), compile=False)
    )
    total = sum(map(math.prod, shapes.values()))
    assert total == 3 * 6_050_882_784 + 2
    for batch, model, zero, share in (
        (8, 1, False, 1),
        (1, 8, False, 8),
        (8, 1, True, 8),
        (2, 4, True, 8),
        (4, 8, True, 32),
    ):
        sizes = {"batch": batch, "model": model, None: 1}
        numbers = sum(
            math.prod(shapes[path]) / math.prod(sizes[axis] for axis in axes)
            for path, axes in layouts(shapes, batch, model, zero=zero).items()
        )
        assert 1 <= numbers / (total / share) < 1.01


def test_without_a_model_axis_any_weight_will_do():
    assert layouts({"experts/kernel": (8, 32, 64)}, 8, 1) == {
        "experts/kernel": [None] * 3
    }


def test_weights_without_a_layout_are_listed_before_they_are_used():
    distribution = CausalLMParallel(mesh(2, 4))
    for path in ("a/token_embedding/embeddings", "moe/kernel", "moe/gate", "moe/bias"):
        shape = (8,) if path == "moe/bias" else (8, 32)
        distribution.get_variable_layout(SimpleNamespace(path=path, shape=shape))
    for check in (
        distribution.check_layouts,
        lambda: distribution.get_data_layout((8, 4)),
    ):
        with pytest.raises(ValueError, match="replicated on all 4 devices") as error:
            check()
        assert "moe/kernel (8, 32)\n  moe/gate (8, 32)\n" in str(error.value)
        assert "embeddings" not in str(error.value)
        assert "moe/bias" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "shape", "size", "nearest"),
    (
        ("b/self_attention/query/kernel", (32, 6, 8), 6, ("4 and 8", "3 and 6")),
        ("self_attention/key/kernel", (32, 3, 8), 3, ("4", "3")),
        ("feedforward_output_dense/kernel", (50, 32), 50, ("48 and 52", "2 and 5")),
        ("lm_head/kernel", (32, 258), 258, ("256 and 260", "3 and 6")),
        ("token_embedding/embeddings", (258, 34), 258, ("256 and 260", "3 and 6")),
    ),
)
def test_size_that_does_not_divide_is_an_error_with_what_would(
    path, shape, size, nearest
):
    distribution = CausalLMParallel(mesh(2, 4))
    with pytest.raises(ValueError, match=f"size {size}, .* the 4 devices") as error:
        distribution.get_variable_layout(SimpleNamespace(path=path, shape=shape))
    assert repr(path) in str(error.value)
    assert f"Nearest sizes that would: {nearest[0]}. " in str(error.value)
    assert str(error.value).endswith(f"{size} divides by: {nearest[1]}.")


def test_zero_needs_an_axis_that_divides():
    distribution = CausalLMParallel(mesh(8, 1), zero=True)
    with pytest.raises(ValueError, match="zero=True: .6. do not divide by 8"):
        distribution.get_variable_layout(
            SimpleNamespace(path="feedforward_output_dense/kernel", shape=(12, 6))
        )


def test_rows_that_do_not_divide_are_an_error_with_what_would():
    distribution = CausalLMParallel(mesh(4, 2))
    assert distribution.get_data_layout((8, 3)).axes == ("batch", None)
    with pytest.raises(ValueError, match="batch of 6 rows .* 4 devices.* 4 and 8"):
        distribution.get_data_layout((6, 3))


def test_name_of_the_model_axis_is_free():
    device_mesh = keras.distribution.DeviceMesh(
        (2, 4), ["data", "heads"], [f"cpu:{i}" for i in range(8)]
    )
    layout_map = causal_lm_layout_map(device_mesh, model_axis="heads")
    assert layout_map["lm_head/kernel"].axes == (None, "heads")
    assert layout_map["lm_head/kernel"].device_mesh is device_mesh
