"""A Llama with the switches that KerasHub's classes lack."""
