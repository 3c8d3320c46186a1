"""The devices that JAX finds."""

import jax


def found_devices() -> list:
    """The devices of all processes, in JAX's order.

    Raises:
        ValueError: if the environment variable `JAX_PLATFORMS` names a platform without
            a plugin or a device.
    """
    try:
        return jax.devices()
    except (AssertionError, RuntimeError) as error:
        # For a GPU that is not there JAX has an `AssertionError` without a message.
        platforms = jax.config.jax_platforms
        if not platforms:
            raise
        remedy = (
            f"{error} Make the device visible, install the plugin (NVIDIA GPUs: pip "
            "install 'star-keras[cuda]'), or unset the variable."
        )
        raise ValueError(
            "Invalid value for the environment variable JAX_PLATFORMS. Expected "
            "platforms with a device here and a plugin of JAX. Received: "
            f"JAX_PLATFORMS={platforms!r}. {remedy.lstrip()}"
        ) from error


def describe_devices(devices) -> str:
    """Devices in words, e.g. `"8 tpu devices (TPU v5 lite)"`."""
    count, first = len(devices), devices[0]
    text = f"{count} {first.platform} device{'s' * (count > 1)}"
    kind = first.device_kind
    return text if kind == first.platform else f"{text} ({kind})"
