"""Where weights come from: published Kinetics-400 and ImageNet checkpoints, and local files."""

import difflib
import pickle
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from zamba_lcli.errors import InputError
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.fitting import Other, check_body

# zamba's checkpoints keep hyperparameters in Lightning's dict with attributes, here under its new and its old name; it is
# read as a plain dict.
PLAIN_CLASSES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (dict, "lightning_fabric.utilities.data.AttributeDict"),
    (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
]
PUBLISHED = (
    "kinetics400",
    "imagenet",
    "pretrained",
)  # what `weights` may be besides a path: none of these knows the user's classes


def load_published(url: str) -> dict[str, Tensor]:
    """Loads a checkpoint that pytorchvideo or torchvision publishes through torch.hub's cache (``TORCH_HOME``).

    Args:
        url: Where the checkpoint is published; a file of the same name in the cache is used instead.

    Returns:
        The state dict, tensors on the CPU.

    Raises:
        InputError: If the file is neither cached nor to be had; says where to put it.
    """
    cached = _in_torch_hub(url.rsplit("/", 1)[-1])
    if cached.is_file():
        return load_file(cached)[0]
    try:
        checkpoint = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:  # the last one: a hash other than the one in the name
        raise InputError(
            f"Cannot download the weights {url} ({error}). Where there is a network, download that file and put it at "
            f"{cached}; or set model.init_args.weights to a checkpoint file, or to null for a random start."
        ) from error
    return _state_dict(checkpoint)


def load_published_weights(network: nn.Module, url: str) -> None:
    """Loads the weights of a published checkpoint; those of layers that the network lacks are left out.

    Raises:
        InputError: If the file is not to be had, or holds the weights of another network.
    """
    state, wanted = load_published(url), network.state_dict()
    for key, value in wanted.items():
        counts = key.endswith("num_batches_tracked")  # old files lack it, and nothing depends on it
        if not counts and (key not in state or state[key].shape != value.shape):
            raise InputError(
                f"model.init_args.weights: {_in_torch_hub(url.rsplit('/', 1)[-1])} is not the file that is published for this "
                f"network: {key} is not in it, or has another shape. Delete it; it is downloaded again."
            )
    network.load_state_dict({key: state[key] for key in wanted if key in state})


def build_image_model(name: str, pretrained: bool) -> nn.Module:
    """Builds one of timm's image models without its classifier, for pictures of any size where the network can.

    Args:
        name: As timm calls it, e.g. ``resnet50`` or, with a tag that says which weights, ``resnet50.a1_in1k``.
        pretrained: Whether to load its published weights: from a file ``<name>.<tag>.safetensors`` in torch.hub's cache
            (``TORCH_HOME``) if there is one, else from the cache of the Hugging Face hub or from the network.

    Raises:
        InputError: If timm has no such model, or its weights are not to be had; says where to put them.
    """
    import timm  # takes seconds, which those who use no model of timm need not wait

    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models())
        raise InputError(
            f"model.init_args.network: timm {timm.__version__} has no model {name!r}"
            f"{'; near are ' + ', '.join(near) if near else ''}. All names: timm.list_models()."
        )
    try:
        published = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tagged = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise InputError(f"model.init_args.network: timm has no weights {name}; it has {', '.join(tagged)}.") from error
    if not pretrained:
        return _create_for_any_size(name)
    if published is None or not published.has_weights:
        raise InputError(
            f"model.init_args.weights: timm has no published weights for {name}. Set weights to null for a random start, or "
            "to a checkpoint file."
        )
    cached = _in_torch_hub(f"{published.architecture}.{published.tag}.safetensors")
    if cached.is_file():
        return _with_weights_of(cached, name)
    try:
        return _create_for_any_size(name, pretrained=True)
    except OSError as error:
        source = (
            f"https://huggingface.co/{published.hf_hub_id}/resolve/main/model.safetensors"
            if published.hf_hub_id
            else published.url
        )
        raise InputError(
            f"model.init_args.weights: cannot download the weights {source} ({str(error).splitlines()[0]}). Where there is "
            f"a network, download that file and put it at {cached}; or set weights to a checkpoint file, or to null for "
            "a random start."
        ) from error


def similar_image_models(name: str, most: int = 20) -> list[str]:
    """Returns timm's names of the networks of the same family: first those that differ in numbers alone, then by likeness."""
    import timm

    name = name.partition(".")[0]
    family = timm.list_models(module=timm.model_entrypoint(name).__module__.rpartition(".")[2])
    sizes = [other for other in family if re.sub(r"\d+", "#", other) == re.sub(r"\d+", "#", name)]
    alike = difflib.get_close_matches(name, family, n=most, cutoff=0)
    return [other for other in dict.fromkeys([*sizes, *alike]) if other != name][:most]


def _with_weights_of(file: Path, name: str) -> nn.Module:
    """Builds a network with the published weights in ``file``; timm leaves at random, in silence, what is not in it.

    What that is shows a second network, built without the file: timm converts the files of some networks by functions that it
    does not hand out, so that the names in the file say nothing (``timm.models.load_checkpoint`` would refuse those).
    """
    _load_safetensors(file)  # says what is wrong if it is damaged
    models = []
    for arguments in ({"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}, {}):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                models.append(_create_for_any_size(name, **arguments))
            except RuntimeError as error:
                raise _of_another_network(file, name) from error
    loaded, random = models
    pairs = zip(loaded.named_parameters(), random.parameters(), strict=True)
    if any(a.ndim > 1 and a.any() and torch.equal(a, b) for (_, a), b in pairs):
        raise _of_another_network(file, name)
    return loaded


def _of_another_network(file: Path, name: str) -> InputError:
    return InputError(
        f"model.init_args.weights: {file} has not all the weights of {name}. Delete it, so that it is downloaded again; or put "
        "the right file there."
    )


def _create_for_any_size(name: str, **arguments: Any) -> nn.Module:
    import timm

    try:  # vision transformers, which interpolate what they know of positions
        return timm.create_model(name, num_classes=0, dynamic_img_size=True, **arguments)
    except TypeError:  # other networks do not know the word
        return timm.create_model(name, num_classes=0, **arguments)


def _in_torch_hub(file: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / file


def load_file(path: str | Path) -> tuple[dict[str, Tensor], list[str] | None]:
    """Loads the weights in a file: a checkpoint of Lightning, zamba or pytorchvideo, a bare state dict or safetensors.

    Only tensors and plain values are read (``weights_only=True``): a file cannot run code.

    Returns:
        The state dict, tensors on the CPU, and the class names if the file has them.

    Raises:
        InputError: If there is no such file, or it is none of these.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"model.init_args.weights: there is no file {path.absolute()}.")
    if path.suffix == ".safetensors":
        return _load_safetensors(path), None
    checkpoint = load_checkpoint(path)
    hyper_parameters = checkpoint.get("hyper_parameters", {})
    return _state_dict(checkpoint), hyper_parameters.get("class_names", hyper_parameters.get("species"))  # zamba's name


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_safetensors

    try:
        return load_safetensors(path)
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file or is damaged ({error}). Download it again.") from error


def adapt_head(
    model: ZambaVideoClassificationLightningModule, state: dict[str, Tensor], class_names: list[str] | None
) -> dict[str, Tensor]:
    """Returns ``state`` with a head for the model's classes.

    The same classes in another order are matched by name. Of other classes the head is left out; or, with the model's
    ``keep_matching_classes``, its last layer keeps what it knows of classes that the model has too.

    Args:
        model: Has its head.
        state: Weights by the model's own names.
        class_names: The classes that ``state`` was trained for; None where that is not known, which changes nothing.
    """
    if class_names is None or list(class_names) == model.class_names:
        return state
    shared = [name for name in model.class_names if name in class_names]
    if len(shared) < max(len(class_names), len(model.class_names)) and not (shared and model.keep_matching_classes):
        return {key: value for key, value in state.items() if not key.startswith("head.")}
    ours = {id(parameter) for parameter in model.output_layer().parameters()}
    keys = {key: p for key, p in model.named_parameters(remove_duplicate=False) if id(p) in ours}
    if any(key not in state or state[key].shape[1:] != parameter.shape[1:] for key, parameter in keys.items()):
        return {key: value for key, value in state.items() if key not in keys}  # a bias goes with its weight
    here = [model.class_names.index(name) for name in shared]
    there = [list(class_names).index(name) for name in shared]
    fitting = dict(state)
    for key, parameter in keys.items():
        fitting[key] = parameter.detach().clone()
        fitting[key][here] = state[key][there].to(parameter.dtype)
    if len(shared) < len(model.class_names):
        model.untrained += list(keys)  # in part
        others = [name for name in model.class_names if name not in shared]
        rank_zero_info(f"The head knows the classes {shared}; it has to learn {others}.")
    return fitting


def load_matching_weights(
    model: ZambaVideoClassificationLightningModule,
    state: dict[str, Tensor],
    class_names: list[str] | None,
    source: str,
    others: Iterable[Other] = (),
) -> None:
    """Loads the weights of the model's network, and those of its head that it has by name and shape, and prints which.

    Args:
        model: Has its head.
        state: Weights by the model's own names.
        class_names: The classes that ``state`` was trained for; None where they are not known.
        source: Where the weights are from, for messages.
        others: Networks that they may be of, for messages; see ``check_body``.

    Raises:
        InputError: If there are none, or they are of another network.
    """
    state, wanted = adapt_head(model, state, class_names), model.state_dict()
    taken = {key: value for key, value in state.items() if key in wanted and value.shape == wanted[key].shape}
    if not taken:
        raise InputError(
            f"model.init_args.weights: {source} has no weight that this model has, by name and shape; it has, for example, "
            f"{next(iter(state), 'none')}. Check that it is of the same network."
        )
    check_body(model, state, source, others)
    model.load_state_dict(taken, strict=False)
    reinitialized = [key for key in wanted if key not in taken]
    model.untrained += reinitialized
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
        with torch.serialization.safe_globals(PLAIN_CLASSES):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds Python objects other than tensors and plain values, or is not a checkpoint. It is not opened, "
            f"since that could run code in it ({str(error).splitlines()[0]})."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # not read at all
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
