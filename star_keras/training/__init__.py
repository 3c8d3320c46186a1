"""Training a causal LM: examples, packing, the dataset, the step, the optimizer."""

from star_keras.training.compile_model import compile_model
from star_keras.training.dataset import training_batches, training_dataset
from star_keras.training.examples import TrainingExample, tokenize_examples
from star_keras.training.learning_rates import WarmupSchedule
from star_keras.training.packing import make_row, pack
from star_keras.training.stored_examples import StoredExamples, tokenize_stream
from star_keras.training.training_step import TrainingStep

__all__ = [
    "StoredExamples",
    "TrainingExample",
    "TrainingStep",
    "WarmupSchedule",
    "compile_model",
    "make_row",
    "pack",
    "tokenize_examples",
    "tokenize_stream",
    "training_batches",
    "training_dataset",
]
