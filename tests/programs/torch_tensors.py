"""Tensors in both formats of `torch.save`: a process without TensorFlow.

    python torch_tensors.py DIRECTORY

Writes `new.bin`, `old.bin`, and the same arrays as `arrays.npz`.
"""

import pathlib
import sys

import numpy as np
import torch

directory = pathlib.Path(sys.argv[1])
matrix = torch.arange(12.0).reshape(3, 4)
state = {
    "matrix": matrix,
    "transposed": matrix.T,
    "part": matrix[1:, ::2],
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "number": torch.tensor(3),
    "half": torch.ones(5, dtype=torch.float16),
}
torch.save(state, directory / "new.bin")
torch.save(state, directory / "old.bin", _use_new_zipfile_serialization=False)
arrays = {name: tensor.detach().numpy() for name, tensor in state.items()}
np.savez(directory / "arrays.npz", **arrays)
