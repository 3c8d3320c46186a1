"""Training on token ids while a preprocessor is attached."""

import keras


def feed_token_ids(model):
    """Let `model.fit` take dictionaries of token ids past its preprocessor.

    A KerasHub model with a preprocessor tokenizes all that it is fitted on,
    and throws its sample weights away. After this call, rows that are token
    ids already go to the model as they are; text is still preprocessed.

    Args:
        model: A `keras_hub.models.CausalLM`. Changed in place.
    """
    preprocess = model.preprocess_samples

    def preprocess_samples(x, y=None, sample_weight=None):
        if isinstance(x, dict) and "token_ids" in x:
            return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        return preprocess(x, y, sample_weight)

    # Not through Keras, which would track the function as state.
    object.__setattr__(model, "preprocess_samples", preprocess_samples)
