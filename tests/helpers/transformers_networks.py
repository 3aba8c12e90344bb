"""transformers' video classifiers as small as can be, written as ``save_pretrained`` writes them."""

import json

import torch

SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 5}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
FOUR = {**SMALL, "num_hidden_layers": 3, "num_frames": 4, "image_size": 32}
NETWORKS = {
    "vjepa2": (
        "VJEPA2",
        {
            **{key: value for key, value in SMALL.items() if key != "intermediate_size"},
            "num_hidden_layers": 3,
            "num_attention_heads": 1,
            "frames_per_clip": 4,
            "crop_size": 32,
            "patch_size": 16,
            "mlp_ratio": 2,
            "num_pooler_layers": 1,
            "pred_hidden_size": 16,
            "pred_num_attention_heads": 1,
            "pred_num_hidden_layers": 1,
        },
    ),
    "videomae": ("VideoMAE", {**FOUR, "use_mean_pooling": True}),
    "videoprism": (
        "VideoPrismVision",
        {**SMALL, "num_frames": 4, "image_size": 32, "tubelet_size": [1, 16, 16], "num_spatial_layers": 2}
        | {"num_temporal_layers": 1},
    ),
    "timesformer": ("Timesformer", FOUR),
    "vivit": ("Vivit", {**FOUR, "tubelet_size": [2, 16, 16]}),
}


def write_network(name, folder, kind="ForVideoClassification", **changes):
    """Writes a network with random weights and returns it."""
    import transformers

    prefix, arguments = NETWORKS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{prefix}Config")(**{**arguments, **changes})
    model = getattr(transformers, f"{prefix.removesuffix('Vision')}{kind}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # positions and queries start at zero
            parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    pixels = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN, "image_std": STD}
    if name == "videoprism":  # pixels from 0 to 1
        pixels["do_normalize"] = False
    if name == "vivit":
        pixels |= {"rescale_factor": 1 / 127.5, "offset": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return model


def preprocessed(name, video):
    """Turns uint8 (B, 3, T, H, W) into what transformers' network takes."""
    x = video.float().transpose(1, 2)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    if name == "videoprism":
        return x / 255
    return ((x / 127.5 - 1 if name == "vivit" else x / 255) - mean) / std
