"""Checks that a model's weights are available, without downloading them."""

import re
from collections.abc import Collection
from pathlib import Path

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json

# The names under which transformers looks for weights, in its order: whole, or an index that names the parts.
_WHOLE = ("model.safetensors", "pytorch_model.bin")
_INDEXES = tuple(f"{name}.index.json" for name in _WHOLE)
_OTHER_MODEL = "give a model you have with backbone.path=FOLDER"


def find_weights(path: str) -> int:
    """Returns the number of bytes of weights still to be downloaded for a folder or the hub's ID in `backbone.path`.

    Raises UserError if the weights are not available: no such folder or repository, no weights in it, a gated model, a hub out of reach.
    """
    if Path(path).is_dir():
        if problem := _problem(Path(path)):
            raise UserError(f"backbone.path={path}: {problem}; {_OTHER_MODEL}")
        return 0
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) or path.startswith("."):
        raise UserError(f"backbone.path={path}: no such folder, and no ID of a model at the hub (OWNER/NAME)")
    return 0 if _cached(path) else _at_hub(path)


def _problem(folder: Path) -> str | None:
    """Returns what is missing in a folder that should hold a model; None if nothing is."""
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return "the folder holds an adapter without the model it belongs to"
    if not (folder / "config.json").is_file():
        return "there is no config.json in the folder"
    for whole, index in zip(_WHOLE, _INDEXES, strict=True):
        if (folder / whole).is_file():
            return None
        if (folder / index).is_file():
            missing = [name for name in _parts(folder / index) if not (folder / name).is_file()]
            return (
                f"of its weights {', '.join(missing[:3])} {'is' if len(missing) == 1 else 'are'} missing" if missing else None
            )
    return f"there are no weights in the folder ({' or '.join(_WHOLE)})"


def _parts(index: Path) -> list[str]:
    return sorted(set(read_json(index)["weight_map"].values()))


def _cached(model: str) -> bool:
    """Returns whether the hub's cache on this machine holds the whole model."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _problem(Path(snapshot_download(model, local_files_only=True))) is None
    except (LocalEntryNotFoundError, OSError):
        return False


def _at_hub(model: str) -> int:
    """Returns the bytes of a model's weights at the hub. Raises UserError if there are none that this account may read."""
    from httpx import HTTPError
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    hub, setting = constants.ENDPOINT, f"backbone.path={model}"
    try:
        api = HfApi()
        api.auth_check(model)
        files = {file.rfilename: file.size or 0 for file in api.model_info(model, files_metadata=True).siblings}
    except GatedRepoError:
        raise UserError(
            f"{setting}: the model is gated: accept its terms at {hub}/{model} and log in (`hf auth login`, or HF_TOKEN); or {_OTHER_MODEL}"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{setting}: no such folder here, and no such model at {hub} that this account may see; {_OTHER_MODEL}"
        ) from None
    except OfflineModeIsEnabled:
        raise UserError(f"{setting}: not in the cache, and HF_HUB_OFFLINE keeps the hub out of reach; {_OTHER_MODEL}") from None
    except HfHubHTTPError as error:
        problem = f"answers {error.response.status_code}" if error.response is not None else "cannot be reached"
        raise UserError(f"{setting}: not in the cache, and the hub {hub} {problem}; {_OTHER_MODEL}") from None
    except (HTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{setting}: not in the cache, and the hub {hub} cannot be reached ({reason}); {_OTHER_MODEL}"
        ) from None
    weights = _weight_files(files)
    if not weights:
        raise UserError(f"{setting}: there are no weights in the repository ({' or '.join(_WHOLE)}); {_OTHER_MODEL}")
    return sum(files[name] for name in weights)


def _weight_files(files: Collection[str]) -> list[str]:
    """Returns the files that transformers would load: those of the first known name in the repository, whole or in parts."""
    for whole, index in zip(_WHOLE, _INDEXES, strict=True):
        if whole in files:
            return [whole]
        if index in files:
            stem, _, kind = whole.rpartition(".")
            return [name for name in files if re.fullmatch(rf"{stem}-\d+-of-\d+\.{kind}", name)]
    return []
