import pytest
from keras_hub import models as hub

from star_keras.models.families import family_of
from star_keras.sampling import BatchSampler, get_sampler
from star_keras.testing import tiny_causal_lm


class ScaledLlama(hub.LlamaCausalLM):
    """A head of its own."""

    def call_with_cache(self, *args, **kwargs):
        logits, *rest = super().call_with_cache(*args, **kwargs)
        return 2 * logits, *rest


def test_a_model_with_a_head_of_its_own_is_of_no_family():
    stock = tiny_causal_lm("llama", packed=False)
    assert family_of(stock) is not None
    parts = {"backbone": stock.backbone, "preprocessor": stock.preprocessor}
    assert family_of(ScaledLlama(**parts)) is None


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_a_quantized_model_goes_the_slow_way():
    model = tiny_causal_lm("llama", packed=False, num_layers=1)
    model.backbone.quantize("int8")
    assert family_of(model) is None
    assert type(get_sampler(model, max_new_tokens=2)) is BatchSampler
