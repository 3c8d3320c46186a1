"""Files of finished phases, which never change: their digests, and damage to them."""

from collections.abc import Callable, Iterable

from etils import epath

from star_keras.storage.iteration_names import iteration_name
from star_keras.storage.records import FINISHED_NAMES
from star_keras.utils import files
from star_keras.utils.digests import Digest


class FinishedFiles:
    """Files that are written once, in a directory for each iteration.

    Args:
        directory: The directory of these directories, local or `gs://`.
        first_rerun: Callable `iteration -> iteration`: the one to start again from if a
            file of an iteration is damaged.

    Attributes:
        recorded: Digests by `(iteration, name)`. A file is compared with its digest
            whenever it is read.
    """

    def __init__(self, directory, first_rerun: Callable[[int], int]):
        self.directory = epath.Path(directory)
        self.recorded: dict[tuple[int, str], Digest] = {}
        self._first_rerun = first_rerun

    def path(self, iteration: int, name: str = "") -> epath.Path:
        """A file of an iteration, or its directory."""
        return self.directory / iteration_name(iteration) / name

    def exists(self, iteration: int, name: str) -> bool:
        """Whether a file was written, even if it is missing now."""
        return (iteration, name) in self.recorded or self.path(iteration, name).exists()

    def new_digests(self, iteration: int) -> dict[str, Digest]:
        """Digests of an iteration's files without a recorded digest, by name."""
        return {
            name: Digest.of_file(self.path(iteration, name))
            for name in FINISHED_NAMES
            if (iteration, name) not in self.recorded
            and self.path(iteration, name).exists()
        }

    def checked_path(self, iteration: int, name: str) -> epath.Path:
        """The path of a file that was compared with its digest.

        Raises:
            ValueError: if it is missing or was changed; names it and the remedy.
        """
        fault = self.fault(iteration, name)
        if fault is not None:
            raise self.damaged(iteration, name, fault)
        return self.path(iteration, name)

    def fault(self, iteration: int, name: str) -> str | None:
        """What is wrong with a file, as a verb; `None` if nothing is. Reads it."""
        path = self.path(iteration, name)
        if not path.exists():
            return "is missing"
        digest = self.recorded.get((iteration, name))
        if digest is not None and digest != Digest.of_file(path):
            return "was changed since it was written"
        return None

    def write(self, iteration: int, name: str, pieces: Iterable[bytes]):
        """Write a file piece by piece, or check that it holds this already.

        Raises:
            ValueError: if it exists and holds something else.
            OSError: if it cannot be written; names it.
        """
        path = self.path(iteration, name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_pieces(path, pieces)
        elif not _holds(path, pieces):
            fault = "was changed: this run would write something else"
            raise self.damaged(iteration, name, fault)

    def faults(self) -> dict[tuple[int, str], str]:
        """What is wrong with recorded files, by `(iteration, name)`, as verbs.

        Looks at their sizes, not at their content.
        """
        found = {}
        for (iteration, name), digest in self.recorded.items():
            path = self.path(iteration, name)
            if not path.exists():
                found[iteration, name] = "is missing"
            elif (size := files.size(path)) != digest.bytes:
                fault = f"has {size} bytes, {digest.bytes} were written"
                found[iteration, name] = fault
        return found

    def is_whole(self, iteration: int) -> bool:
        """Whether the recorded files of an iteration are unchanged; reads them."""
        own = (key for key in self.recorded if key[0] == iteration)
        return all(self.fault(*key) is None for key in own)

    def check(self):
        """Check that every recorded file is there and has its size.

        Raises:
            ValueError: if not; names the file and the remedy.
        """
        for (iteration, name), fault in sorted(self.faults().items()):
            raise self.damaged(iteration, name, fault)

    def damaged(self, iteration: int, name: str, fault: str) -> ValueError:
        """An error that names a damaged file and how the run goes on.

        Args:
            iteration: Its iteration.
            name: Its name.
            fault: What is wrong, as a verb.
        """
        path = self.path(iteration, name)
        if (iteration, name) not in self.recorded and path.exists():
            remedy = "remove it: the same command writes it again."
        else:
            rerun = self._first_rerun(max(iteration, 1))
            remedy = (
                f"add --start_iter={rerun} once (in Python: `rewind({rerun})`) to run "
                "again from that iteration on."
            )
        return ValueError(f"The file {path} {fault}. Put it back, or {remedy}")


def _holds(path, pieces):
    """Whether a file consists of these pieces."""
    with path.open("rb") as file:
        return all(file.read(len(piece)) == piece for piece in pieces) and not (
            file.read(1)
        )
