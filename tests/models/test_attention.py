"""Pooling by attention, for every network with tokens or feature maps."""

import pytest
import torch

from helpers.marks import some_slow
from helpers.model_checks import check_parts, check_training
from zamba_lcli.models import PytorchVideo, SlowFast, TimeDistributedTimm

NAMES = ["a", "b"]
NETWORKS = {  # model, frames, height and width, tokens
    "slowfast": (lambda **a: SlowFast(NAMES, weights=None, model_depth=18, stem_dim_outs=(8, 2), **a), (8, 64, 96), 12),
    "x3d": (lambda **a: PytorchVideo(NAMES, weights=None, name="x3d_xs", **a), (4, 64, 64), 16),
    "slow": (lambda **a: PytorchVideo(NAMES, weights=None, name="slow_r50", **a), (2, 64, 64), 8),
    "resnet": (lambda **a: TimeDistributedTimm(NAMES, weights=None, network="test_resnet", **a), (2, 64, 64), 8),
    "convnext": (lambda **a: TimeDistributedTimm(NAMES, weights=None, network="test_convnext", **a), (2, 64, 64), 8),
    "vit": (lambda **a: TimeDistributedTimm(NAMES, weights=None, network="test_vit", **a), (2, 64, 64), 34),
    "whole": (lambda **a: TimeDistributedTimm(NAMES, weights=None, network="rexnet_100", **a), (3, 64, 64), 3),
}


@pytest.mark.parametrize("name", some_slow(list(NETWORKS), ["slowfast", "vit"]))
def test_all_positions_of_all_frames_are_tokens(name):
    build, size, count = NETWORKS[name]
    model = build(head="attention", post_backbone_dropout=0.5)
    check_parts(model)
    video = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    tokens = model.forward_backbone(model.forward_trunk(video))
    assert tokens.shape == (2, count, model.output_layer().in_features)
    assert build().backbone_layers()[-1][-1].shape == model.backbone_layers()[-1][-1].shape  # no layer is lost
    check_training(model, video)
