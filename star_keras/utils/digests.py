"""Digests of files: size and check sum."""

import dataclasses
import zlib

from etils import epath

from star_keras.utils import files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digest:
    """What is recorded of a file.

    Attributes:
        bytes: Its size.
        crc32: Its check sum; 0 where only the size is recorded.
    """

    bytes: int
    crc32: int

    @classmethod
    def of(cls, content: bytes) -> "Digest":
        """The digest of a file with this content."""
        return cls(bytes=len(content), crc32=zlib.crc32(content))

    @classmethod
    def of_file(cls, path: epath.Path, *, checksum: bool = True) -> "Digest":
        """The digest of a file, read piece by piece; without `checksum` its size."""
        crc32 = 0
        if checksum:
            with path.open("rb") as file:
                while piece := file.read(2**22):
                    crc32 = zlib.crc32(piece, crc32)
        return cls(bytes=files.size(path), crc32=crc32)
