"""Where examples come from: files of arrays and pictures, each read no further than what it declares is in order."""

from jaxpar.training.sources.files import check_file, existing
from jaxpar.training.sources.idx import read_idx
from jaxpar.training.sources.npz import read_npz
from jaxpar.training.sources.pictures import Pictures, read_pictures

__all__ = ["Pictures", "check_file", "existing", "read_idx", "read_npz", "read_pictures"]
