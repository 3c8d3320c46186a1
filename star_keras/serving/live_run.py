"""The weights of a run that goes on: those of its newest trained iteration."""

from etils import epath

from star_keras.distribution.checkpoints import Checkpoints
from star_keras.storage.iteration_names import iteration_name
from star_keras.storage.manifest import read_manifest, trained_iterations
from star_keras.utils.errors import invalid


class LiveRun:
    """Reads weights from a run directory, and writes nothing there.

    Args:
        model: The base model of the run, with the variables that the run saves.
        run_dir: The run directory.

    Attributes:
        iteration: The iteration whose weights the model has; 0 for the base model.

    Raises:
        ValueError: if there is no such directory.
    """

    def __init__(self, model, run_dir: str):
        self._path = epath.Path(run_dir)
        if not self._path.is_dir():
            raise invalid("run_dir", "the directory of a run", run_dir)
        self._variables = model.variables
        self._checkpoints = Checkpoints(self._path / "weights")
        self.iteration = 0

    def load_newest(self) -> bool:
        """Give the model the newest weights.

        Returns:
            Whether they are others than before.

        Raises:
            ValueError: if files are damaged, of another model, or removed meanwhile by
                the run. The model keeps its weights.
            OSError: if files cannot be read.
        """
        newest = trained_iterations(read_manifest(self._path / "manifest.jsonl"))
        if newest == self.iteration:
            return False
        if newest == 0:
            raise ValueError(f"{self._path} has no trained iteration any more.")
        self._checkpoints.restore(iteration_name(newest), self._variables)
        self.iteration = newest
        return True
