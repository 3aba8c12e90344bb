"""BatchNorm folded into the convolutions before it, where nothing trains."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_eval
from torch.utils.hooks import RemovableHandle

BLOCKS = "pytorchvideo."  # whose convolutions hand what they give to their norm and to nothing else
MADE_BY = "_made_by_convolution"


class FoldBatchNorm(Callback):
    """Tests and predicts without a pass over the features for each BatchNorm, which is a sixth of SlowFast's time on a CPU.

    With fixed statistics a BatchNorm multiplies each channel by a number and adds one, which the convolution before it can do.
    Which one that is, the first batch shows; from the next one on the work is saved. Probabilities are the same to rounding.
    When the run ends the model has its own weights again. Networks of pytorchvideo in float32 are folded; others stay as they
    are. The command line sees to it for ``test`` and ``predict``.
    """

    def __init__(self) -> None:
        """Nothing is folded yet."""
        self._hooks: list[RemovableHandle] = []
        self._pairs: list[tuple[nn.Conv3d, _BatchNorm]] = []
        self._own: list[tuple[nn.Conv3d, Tensor, Tensor | None]] = []  # a convolution's own weight and bias
        self._norms: list[tuple[nn.Module, str, nn.Module]] = []  # where a norm was: the block, the name in it

    # ---- hooks -------------------------------------------------------------------------------------------------------

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to watch what hands its output to what."""
        self._watch(pl_module)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Folds what the batch has shown."""
        self._fold(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to watch what hands its output to what."""
        self._watch(pl_module)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Folds what the batch has shown."""
        self._fold(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the model its own weights back."""
        self._unfold()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the model its own weights back."""
        self._unfold()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the model its own weights back."""
        self._unfold()

    # ---- folding -----------------------------------------------------------------------------------------------------

    def _watch(self, module: nn.Module) -> None:
        def mark(convolution: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            setattr(output, MADE_BY, convolution)

        def find(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            convolution = getattr(inputs[0], MADE_BY, None)
            if convolution is not None:
                self._pairs.append((convolution, norm))  # type: ignore[arg-type]

        for block in module.modules():
            if not type(block).__module__.startswith(BLOCKS):
                continue
            for child in block.children():
                layer = (
                    child[0] if isinstance(child, nn.Sequential) and len(child) else child
                )  # X3D's norm with what follows
                if type(layer) is nn.Conv3d and layer.weight.dtype == torch.float32:
                    self._hooks.append(layer.register_forward_hook(mark))
                elif type(layer) is nn.BatchNorm3d and layer.track_running_stats:
                    self._hooks.append(layer.register_forward_pre_hook(find))

    def _fold(self, module: nn.Module) -> None:
        if not self._pairs:  # the batch had no clips, or all is done
            return
        self._stop_watching()
        places = {id(layer): (block, name) for block in module.modules() for name, layer in block.named_children()}
        for convolution, norm in dict(self._pairs).items():
            if norm.training:
                continue
            folded = fuse_conv_bn_eval(convolution, norm)
            self._own.append((convolution, convolution.weight, convolution.bias))
            convolution.weight, convolution.bias = folded.weight, folded.bias
            block, name = places[id(norm)]
            self._norms.append((block, name, norm))
            setattr(block, name, nn.Identity())
        self._pairs.clear()

    def _unfold(self) -> None:
        self._stop_watching()
        self._pairs.clear()
        for convolution, weight, bias in self._own:
            convolution.weight, convolution.bias = weight, bias  # type: ignore[assignment]
        for block, name, norm in self._norms:
            setattr(block, name, norm)
        self._own.clear()
        self._norms.clear()

    def _stop_watching(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()
