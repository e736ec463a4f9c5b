"""The small model that comes with the library, used where no model is named."""

from importlib.resources import files
from pathlib import Path

from optpo.errors import ModelError


def embedded_model_path() -> Path:
    """Return the folder of the embedded model.

    Raises:
        ModelError: the installation lacks it.
    """
    path = Path(str(files("optpo.data") / "embedded" / "model"))
    if not path.is_dir():
        raise ModelError(f"the embedded model is missing at {path}; install optpo again")
    return path
