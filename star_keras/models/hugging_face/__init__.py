"""Hugging Face directories of KerasHub's families, read and written."""
