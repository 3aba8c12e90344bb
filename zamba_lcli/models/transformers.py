"""Video classifiers of Hugging Face's transformers: V-JEPA 2, VideoMAE, VideoPrism, TimeSformer and ViViT."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from zamba_lcli.errors import InputError
from zamba_lcli.models.attention import HeadKind, make_head
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.layers import normalize
from zamba_lcli.models.transformers_blocks import TAKEN_APART, Block, blocks_of, remove_unused, size_of
from zamba_lcli.models.weights import load_file, load_matching_weights

NAMES = (  # some of the networks on the hub, for hints
    "facebook/vjepa2-vitl-fpc16-256-ssv2",
    "facebook/vjepa2-vitl-fpc64-256",
    "MCG-NJU/videomae-base-finetuned-kinetics",
    "MCG-NJU/videomae-small-finetuned-kinetics",
    "google/videoprism-base-f16r288",
    "google/videoprism-large-f8r288",
    "facebook/timesformer-base-finetuned-k400",
    "google/vivit-b-16x2-kinetics400",
)
PIXELS = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
FILES = f"config.json, model.safetensors and {PIXELS[0]} (or {PIXELS[1]})"
NOT_IN_CONFIG = ("architectures", "id2label", "label2id", "transformers_version", "dtype", "torch_dtype")


class TransformersVideo(ZambaVideoClassificationLightningModule):
    """A video transformer of Hugging Face's transformers, by hub name or from a folder, and a linear layer or attention.

    V-JEPA 2, VideoMAE, VideoPrism, TimeSformer and ViViT. Pixels are normalized as the network's preprocessor_config.json
    says. Frames and pixels are those that the network was made for; V-JEPA 2 takes any even number of frames (a multiple of
    its tubelets). Needs ``pip install 'zamba-lcli[transformers]'``.

    Args:
        class_names: The classes, in the order of the logits. On the command line they come from the labels.
        weights: ``pretrained`` for those that ``network`` has, a path for a checkpoint of this program, of which those are
            taken that fit, null for a random start.
        network: A name on the Hugging Face hub, such as ``facebook/vjepa2-vitl-fpc16-256-ssv2``, or a folder as
            ``save_pretrained`` writes it: config.json, model.safetensors and preprocessor_config.json.
        backbone_blocks: How many of the last blocks are the backbone, which finetuning can unfreeze. Those before it never
            train. Blocks are the embeddings of patches and the transformer layers, normalization and pooling being in the last
            one.
        head: ``linear`` for a linear layer on the network's own pooling; ``attention`` for learned queries over all tokens of
            space and time, in place of that.
        post_backbone_dropout: Share of the pooled features set to zero in training, null for none.
        config: What ``network`` says of architecture and pixels; null to read it there. Checkpoints hold it, so that they need
            no other file.
        common: What all models have, such as ``task``: see ``ZambaVideoClassificationLightningModule``.
    """

    feature_arguments = ("network", "config", "backbone_blocks")
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        weights: str | None = "pretrained",
        network: str = NAMES[0],
        backbone_blocks: int = 2,
        head: HeadKind = "linear",
        post_backbone_dropout: float | None = None,
        config: dict[str, Any] | None = None,
        **common: Any,
    ) -> None:
        """Builds the network and loads its weights; see the class for the arguments.

        Raises:
            InputError: If there is no such network, it is no video classifier, it has not as many blocks, or the weights cannot
                be loaded.
        """
        super().__init__(class_names=class_names, **common)
        transformers = _transformers()
        if config is None:
            config = read_config(network)
        self.hparams["config"] = config
        self.network = network
        self.pools_tokens = head == "attention"
        architecture = {key: value for key, value in config.items() if key != "pixels"}
        settings = transformers.AutoConfig.for_model(**architecture)
        with torch.device("meta"):  # to count the blocks before weights are downloaded
            count = len(blocks_of(transformers.AutoModelForVideoClassification.from_config(settings), pools=False))
        if not 1 <= backbone_blocks <= count:
            raise InputError(f"model.init_args.backbone_blocks: {backbone_blocks} is not between 1 and {count}.")
        self._cut = count - backbone_blocks  # the backbone's first block
        if weights == "pretrained":
            self.base: Any = _load_pretrained(transformers, network, settings, pools=not self.pools_tokens)
        else:
            self.base = transformers.AutoModelForVideoClassification.from_config(settings)
        remove_unused(self.base, pools=not self.pools_tokens)
        self.takes = size_of(settings)  # frames, height, width
        self._tubelet = settings.tubelet_size if settings.model_type == "vjepa2" else None
        for name, values in config["pixels"].items():
            self.register_buffer(name, torch.tensor(values).reshape(-1, 1, 1, 1), persistent=False)
        self.head = make_head(head, settings.hidden_size, len(self.class_names), post_backbone_dropout)
        if weights is not None and weights != "pretrained":
            self._load_file(weights)
        self.freeze_backbone()

    def _load_file(self, path: str) -> None:
        """Loads what fits of the weights in a checkpoint of this program."""
        state, class_names = load_file(path)
        if not any(
            key.startswith("base.") for key in state
        ):  # on disk, transformers' names are others than in its networks
            raise InputError(
                f"model.init_args.weights: {path} is not a checkpoint of this program. Put a file of transformers in a folder "
                "as model.safetensors, with config.json and preprocessor_config.json, and set network to the folder."
            )
        load_matching_weights(self, state, class_names, path)

    def _blocks(self) -> list[Block]:
        return blocks_of(self.base, pools=not self.pools_tokens)

    @property
    def trunk(self) -> nn.Module:
        """The blocks before the backbone."""
        return nn.ModuleList(nn.ModuleList(block.layers) for block in self._blocks()[: self._cut])

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The last blocks; not an attribute, with which a checkpoint would hold their weights twice."""
        return nn.ModuleList(nn.ModuleList(block.layers) for block in self._blocks()[self._cut :])

    def forward_trunk(self, video: Tensor) -> Tensor:
        """Normalizes and runs the blocks before the backbone.

        Args:
            video: uint8 (B, 3, T, H, W).

        Returns:
            Tokens (B, N, C); of VideoPrism, by frames or by places, (B, T, N, C) or (B, N, T, C).

        Raises:
            InputError: If the network cannot take clips of this size.
        """
        self._check_size(*video.shape[2:])
        x = normalize(video, next(self.parameters()).dtype, self.mean, self.std).transpose(1, 2)
        for block in self._blocks()[: self._cut]:
            x = block.run(x)
        return x

    def _check_size(self, frames: int, height: int, width: int) -> None:
        """Refuses clips of a number of frames, a height or a width that the network cannot take."""
        takes_frames = frames == self.takes[0] if self._tubelet is None else frames > 0 and frames % self._tubelet == 0
        if takes_frames and (height, width) == self.takes[1:]:
            return
        number = str(self.takes[0]) if self._tubelet is None else f"a multiple of {self._tubelet}"
        raise InputError(
            f"{self.network} takes {number} frames of {self.takes[1]} x {self.takes[2]} pixels (height x width), not {frames} "
            f"frames of {height} x {width}: set num_frames of data.sampling, data.height and data.width accordingly."
        )

    def forward_backbone(self, features: Tensor) -> Tensor:
        """Runs the last blocks: to (B, C), pooled as the network does, or for attention to tokens (B, N, C)."""
        for block in self._blocks()[self._cut :]:
            features = block.run(features)
        return features


def _transformers() -> ModuleType:
    try:
        import transformers
    except ModuleNotFoundError:
        raise InputError(
            "model: TransformersVideo needs transformers: pip install 'zamba-lcli[transformers]'."
        ) from None
    cast(Any, transformers).utils.logging.set_verbosity_error()  # what is not loaded is told here
    return transformers


def read_config(network: str) -> dict[str, Any]:
    """Returns what a network says of itself: its architecture, and under ``pixels`` mean and std of pixels between 0 and 1.

    Args:
        network: A folder, or a name on the hub, from which only the small JSON files are downloaded.

    Raises:
        InputError: If it is not to be had, or is no video classifier that can be run here; says which files to put where.
    """
    folder = Path(network) if Path(network).is_dir() else _download_settings(network)
    architecture = _read_json(folder / "config.json", network)
    kind = architecture.get("model_type")
    if kind not in TAKEN_APART:
        raise InputError(
            f"model.init_args.network: {network} is not a video classifier that is known here: model_type in its config.json "
            f"is {kind!r}, not one of {', '.join(TAKEN_APART)}."
        )
    try:
        settings = _transformers().AutoConfig.for_model(**architecture)
    except (TypeError, ValueError) as error:  # checked by transformers
        raise InputError(f"model.init_args.network: config.json in {network}: {error}") from error
    stated = json.loads(settings.to_json_string(use_diff=True))
    plain = {key: value for key, value in stated.items() if key not in NOT_IN_CONFIG and not key.startswith("_")}
    return {**plain, "model_type": kind, "pixels": _pixels(folder, network, kind)}


def _pixels(folder: Path, network: str, kind: str) -> dict[str, list[float]]:
    """Returns mean and standard deviation of pixels between 0 and 1 from what the preprocessor is stated to do."""
    found = next((folder / name for name in PIXELS if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"model.init_args.network: {network} has none of {', '.join(PIXELS)}. Put one of them there.")
    stated = _read_json(found, network)
    stated = stated.get("video_processor") or stated.get("image_processor") or stated
    factor = 255 * stated.get("rescale_factor", 1 / 255) if stated.get("do_rescale", True) else 255.0
    offset = (
        1.0 if stated.get("offset", kind == "vivit") else 0.0
    )  # ViViT's preprocessors take 1 from what they rescaled
    mean, std = [0.0], [1.0]
    if stated.get("do_normalize", True):
        if "image_mean" not in stated or "image_std" not in stated:
            raise InputError(f"model.init_args.network: {found} lacks image_mean or image_std.")
        mean, std = ([float(x) for x in stated[key]] for key in ("image_mean", "image_std"))
    return {"mean": [(m + offset) / factor for m in mean], "std": [s / factor for s in std]}


def _read_json(path: Path, network: str) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"model.init_args.network: {network} has no {path.name}. It needs {FILES}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"model.init_args.network: {path} is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"model.init_args.network: {path} holds a {type(content).__name__}, not settings.")
    return cast(dict[str, Any], content)


def _download_settings(network: str) -> Path:
    """Returns the folder in the hub's cache with a network's JSON files, downloaded if they are not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(network, allow_patterns=["*.json"]))
    except (OSError, ValueError, HFValidationError) as error:
        near = difflib.get_close_matches(network, NAMES, n=1) or difflib.get_close_matches(
            network.rpartition("/")[-1], [name.rpartition("/")[-1] for name in NAMES], n=1
        )
        hint = f" Did you mean {next(name for name in NAMES if name.endswith(near[0]))}?" if near else ""
        raise InputError(
            f"model.init_args.network: there is no folder {Path(network).absolute()}, and {network} cannot be had from the "
            f"Hugging Face hub ({str(error).splitlines()[0]}).{hint} Where there is a network, download {FILES} from "
            f"https://huggingface.co/{network}/tree/main, put them in a folder, and set network to that folder."
        ) from error


def _load_pretrained(transformers: ModuleType, network: str, settings: Any, pools: bool) -> nn.Module:
    """Returns a network with its published weights.

    Args:
        transformers: The library.
        network: A folder, or a name on the hub.
        settings: The network's configuration.
        pools: Whether its own pooling is used.

    Raises:
        InputError: If they are not to be had, are of another size, or lack what is used.
    """
    try:
        model, found = transformers.AutoModelForVideoClassification.from_pretrained(
            network, config=settings, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )  # told below, but for the classifier
    except (OSError, ValueError) as error:
        raise InputError(
            f"model.init_args.weights: the weights of {network} are not to be had ({str(error).splitlines()[0]}). Put "
            "model.safetensors, downloaded elsewhere, into a folder with the other files and set network to it; or set weights "
            "to a checkpoint file, or to null for a random start."
        ) from error
    remove_unused(model, pools)
    ours = model.state_dict()
    for key, theirs, wanted in found["mismatched_keys"]:
        if key in ours:
            raise InputError(
                f"model.init_args.weights: the weights of {network} are of another size than its config.json says: {key} is "
                f"{list(theirs)} and not {list(wanted)}. Take both files from the same network."
            )
    missing = [key for key in ours if key in found["missing_keys"] and "fc_norm" not in key]
    if not missing:
        return cast(nn.Module, model)
    own_pool = all(key.startswith(("pooler.", "head.", "head_layernorm.")) for key in missing)
    raise InputError(
        f"model.init_args.network: {network} has no weights for its own pooling, such as {missing[0]}: it was published "
        "without a classifier. Set model.init_args.head to attention."
        if own_pool
        else f"model.init_args.network: the weights of {network} lack {len(missing)} of the network's, such as {missing[0]}."
    )
