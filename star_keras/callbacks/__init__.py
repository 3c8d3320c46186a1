"""The outer loop as a Keras callback, and small siblings."""

from star_keras.callbacks.fine_tuning import FineTuning
from star_keras.callbacks.sample_table import SampleTable
from star_keras.callbacks.star_iteration_callback import StarIterationCallback
from star_keras.callbacks.throughput import Throughput

__all__ = ["FineTuning", "SampleTable", "StarIterationCallback", "Throughput"]
