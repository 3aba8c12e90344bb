"""Where weights come from: published Kinetics-400 checkpoints and local files."""

import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from zamba_lcli.errors import InputError


def load_published(url: str) -> dict[str, Tensor]:
    """Loads a checkpoint of pytorchvideo's model zoo through torch.hub's cache (``TORCH_HOME``).

    Args:
        url: Where the checkpoint is published; a file of the same name in the cache is used instead.

    Returns:
        The state dict, tensors on the CPU.

    Raises:
        InputError: If the file is neither cached nor to be had; says where to put it.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if cached.is_file():
        return load_file(cached)[0]
    try:
        checkpoint = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
    except (URLError, OSError) as error:
        raise InputError(
            f"Cannot download the weights {url} ({error}). Where there is a network, download that file and put it at "
            f"{cached}; or set model.init_args.weights to a checkpoint file, or to null for a random start."
        ) from error
    return _state_dict(checkpoint)


def load_file(path: str | Path) -> tuple[dict[str, Tensor], list[str] | None]:
    """Loads the weights in a file: a Lightning checkpoint, one of pytorchvideo's, or a bare state dict.

    Only tensors and plain values are read (``weights_only=True``): a file cannot run code.

    Returns:
        The state dict, tensors on the CPU, and the names of the classes if the file tells them.

    Raises:
        InputError: If there is no such file, or it is none of these.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"model.init_args.weights: there is no file {path.absolute()}.")
    checkpoint = load_checkpoint(path)
    return _state_dict(checkpoint), checkpoint.get("hyper_parameters", {}).get("class_names")


def take_what_fits(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Gives ``model`` the weights in ``state`` that it has by name and shape, and says which those are.

    Raises:
        InputError: If there are none.
    """
    wanted = model.state_dict()
    taken = {key: value for key, value in state.items() if key in wanted and value.shape == wanted[key].shape}
    if not taken:
        raise InputError(
            f"model.init_args.weights: {source} has no weight that this model has, by name and shape; it has, for example, "
            f"{next(iter(state), 'none')}. Check model_depth and stem_dim_outs."
        )
    model.load_state_dict(taken, strict=False)
    reinitialized = [key for key in wanted if key not in taken]
    dropped = [key for key in state if key not in taken]
    lines = [f"{source}: {len(taken)} of the model's {len(wanted)} weights taken."]
    lines += [
        f"  {what}: {', '.join(keys)}"
        for what, keys in (("reinitialized", reinitialized), ("dropped", dropped))
        if keys
    ]
    rank_zero_info("\n".join(lines))


def load_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Loads a checkpoint file, tensors and plain values only.

    Args:
        path: The file.
        mmap: Leave the tensors on disk until they are used; for files written by this program.

    Raises:
        InputError: If the file is not a checkpoint, is damaged, or holds objects that would have to be executed.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds Python objects other than tensors and plain values, or is not a checkpoint. It is not opened, "
            f"since that could run code in it ({str(error).splitlines()[0]})."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is not a checkpoint or is damaged ({str(error).splitlines()[0]}). Copy or download it again."
        ) from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint.")
    return checkpoint


def _state_dict(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    for key in ("state_dict", "model_state"):  # Lightning's and pytorchvideo's name for it
        if isinstance(checkpoint.get(key), dict):
            return dict(checkpoint[key])
    return checkpoint
