"""Models of single frames: against timm's own networks, and against zamba's."""

import pytest
import safetensors.torch
import timm
import torch
from packaging.version import Version
from torch import nn

from helpers.marks import some_slow
from helpers.model_checks import check_commands, check_parts, check_training
from helpers.paths import MODELS, TINY
from helpers.tables import read_csv
from zamba_lcli.cli import main
from zamba_lcli.errors import InputError
from zamba_lcli.models import SingleFrameResnet, TimeDistributedEfficientNet, TimeDistributedTimm

NETWORKS = ["test_efficientnet", "test_resnet", "test_convnext", "test_vit"]
MORE_NETWORKS = ["mobilenetv3_small_050", "regnetx_002", "vit_tiny_patch16_224", "resnetv2_50x1_bit", "densenet121"]


def timm_model(network, **arguments):
    return TimeDistributedTimm(["a", "b", "c"], **{"weights": None, "network": network, **arguments})


def clip(frames, height=32, width=48):
    return torch.randint(0, 256, (2, 3, frames, height, width), dtype=torch.uint8)


def with_statistics(network):
    """Running statistics as after training, so that a BatchNorm left out or taken twice shows."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize("network", [*NETWORKS, *MORE_NETWORKS])
def test_features_are_those_of_the_image_model(network):
    model = timm_model(network)
    with_statistics(model.base)
    model.eval()
    size = model.base.pretrained_cfg["input_size"][1:] if "vit" in network else (64, 96)
    video = clip(2, *size)
    config = model.base.pretrained_cfg
    mean, std = (torch.tensor(config[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        features = model.forward_trunk(video)
        assert features.shape[:2] == (2, 2)
        found = model.forward_backbone(features)
        for t in range(2):
            expected = model.base((video[:, :, t].float() / 255 - mean) / std)  # num_classes=0: what goes to the head
            torch.testing.assert_close(found[:, t], expected)
    check_parts(model)


@pytest.mark.parametrize("network", NETWORKS)
def test_what_trains(network):
    model = timm_model(network)
    check_parts(model)
    check_training(model, clip(3))


def test_trunk_grows_and_shrinks_with_backbone_blocks():
    model = timm_model("test_resnet", backbone_blocks=2)
    assert [
        layer is model.base.get_submodule(f"layer{i}") for i, layer in ((3, model.backbone[0]), (4, model.backbone[1]))
    ]
    check_parts(model)
    everything = timm_model("test_vit", backbone_blocks=6)
    check_parts(everything)
    assert {
        name for name, p in everything.base.named_parameters() if any(p is q for q in everything.trunk.parameters())
    } == {
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
    }


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_pooling_over_frames(pooling):
    model = timm_model("test_resnet", pooling=pooling, post_backbone_dropout=0.5).eval()
    assert model.head[1].p == 0.5
    video = clip(4)
    with torch.no_grad():
        features = model.forward_backbone(model.forward_trunk(video))  # (2, 4, 96)
        pooled = model.head[0](features)
        if pooling == "attention":
            weights = torch.softmax(torch.stack([model.head[0].score(features[:, t]) for t in range(4)]), dim=0)
            expected = sum(weights[t] * features[:, t] for t in range(4))
        else:
            expected = features.mean(1) if pooling == "mean" else features.max(1).values
        torch.testing.assert_close(pooled, expected)
        turned = model(video[:, :, [2, 0, 3, 1]])
        torch.testing.assert_close(turned, model(video))  # the order of frames does not matter
        assert model(clip(1)).shape == (2, 3)


@pytest.mark.parametrize("backbone_blocks", [1, 3])
def test_a_checkpoint_fits_whatever_its_backbone_blocks(folder, backbone_blocks):
    trained = timm_model("test_vit", backbone_blocks=2)
    torch.save({"state_dict": trained.state_dict(), "hyper_parameters": {"class_names": ["a", "b", "c"]}}, "own.ckpt")
    model = timm_model("test_vit", backbone_blocks=backbone_blocks, weights="own.ckpt")
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in model.state_dict().items())


def test_imagenet_weights_come_from_torch_hubs_cache(folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder))
    monkeypatch.setattr("timm.models._hub.hf_hub_download", _no_network)
    cached = folder / "hub" / "checkpoints" / "test_resnet.r160_in1k.safetensors"
    with pytest.raises(InputError) as error:
        timm_model("test_resnet", weights="imagenet")
    assert str(cached) in str(error.value)
    assert "https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model.safetensors" in str(error.value)
    cached.parent.mkdir(parents=True)
    published = with_statistics(timm.create_model("test_resnet"))
    safetensors.torch.save_file(published.state_dict(), cached)
    for weights in ("imagenet", str(cached)):
        base = timm_model("test_resnet", weights=weights).base.state_dict()
        assert len(base) > 50
        assert all(torch.equal(value, published.state_dict()[key]) for key, value in base.items())


@pytest.mark.parametrize("other", ["test_vit.r160_in1k", "test_resnet2", "cut"])
def test_a_file_in_the_cache_that_is_another_networks(folder, monkeypatch, other):
    monkeypatch.setenv("TORCH_HOME", str(folder))
    cached = folder / "hub" / "checkpoints" / "test_resnet.r160_in1k.safetensors"
    cached.parent.mkdir(parents=True)
    network = timm.create_model("test_vit" if "vit" in other else "test_resnet")
    state = network.state_dict()
    if other == "test_resnet2":  # a part of it only
        state = {key: value for key, value in state.items() if not key.startswith("layer4")}
    safetensors.torch.save_file(state, cached)
    if other == "cut":
        cached.write_bytes(cached.read_bytes()[:-1000])
    with pytest.raises(InputError) as error:
        timm_model("test_resnet", weights="imagenet")
    assert str(cached) in str(error.value)
    assert "ownload" in str(error.value)


def _no_network(*args, **kwargs):
    raise OSError("no network")


@pytest.mark.parametrize(
    ("wrong", "texts"),
    [
        ({"network": "resnet500"}, ["model.init_args.network", "resnet50"]),
        ({"network": "eva02_tiny_patch14_224", "backbone_blocks": 14}, ["between 1 and 13"]),
        ({"network": "test_resnet", "backbone_blocks": 5}, ["between 1 and 4", "layer1, layer2, layer3, layer4"]),
        ({"network": "test_resnet", "weights": "no.ckpt"}, ["no.ckpt"]),
        ({"network": "test_resnet", "weights": "broken.safetensors"}, ["broken.safetensors"]),
        ({"network": "test_resnet", "weights": "other.ckpt"}, ["other.ckpt", "no weight"]),
        ({"network": "test_resnet.nix", "weights": "imagenet"}, ["test_resnet.nix", "test_resnet.r160_in1k"]),
        ({"network": "botnet50ts_256", "weights": "imagenet"}, ["model.init_args.weights", "botnet50ts_256"]),
    ],
)
def test_what_does_not_fit_is_refused(folder, wrong, texts):
    (folder / "broken.safetensors").write_bytes(b"1234567890")
    torch.save({"fc.other": torch.zeros(2)}, "other.ckpt")
    with pytest.raises(InputError) as error:
        timm_model(**wrong)
    assert all(text in str(error.value) for text in texts)


@pytest.mark.parametrize(
    ("network", "size", "takes"),
    [
        ("test_vit", (40, 50), "160 x 160"),  # patches of 16
        # a table of relative positions
        pytest.param("coatnet_pico_rw_224", (64, 96), "224 x 224", marks=pytest.mark.slow),
        pytest.param("maxvit_pico_rw_256", (256, 500), "256 x 256", marks=pytest.mark.slow),  # windows
        pytest.param("hrnet_w18_small", (50, 50), "224 x 224", marks=pytest.mark.slow),  # run as a whole
        # its trunk would take them
        pytest.param("efficientformerv2_s0", (64, 64), "224 x 224", marks=pytest.mark.slow),
    ],
)
def test_sizes_that_the_network_cannot_take_are_refused(network, size, takes):
    model = timm_model(network).eval()
    for _ in range(2):  # not only the first time
        with pytest.raises(InputError) as error:
            model(clip(1, *size))
    text = str(error.value)
    assert f"does not take frames of {size[0]} x {size[1]} pixels. It takes, for example, {takes} (height" in text
    assert "data.height" in text
    with torch.no_grad():
        assert model(clip(1, *map(int, takes.split(" x ")))).shape == (2, 3)


def test_a_size_that_only_computing_tells_is_refused():
    """Positions are looked up in a table that is too small, of which the shapes say nothing."""
    with pytest.raises(
        InputError, match=r"mvitv2_tiny does not take frames of 64 x 512 pixels\. It takes, for example, 224"
    ):
        timm_model("mvitv2_tiny").eval()(clip(1, 64, 512))


def test_looking_at_the_size_leaves_the_network_as_it_is():
    model = timm_model("coat_tiny")  # keeps positions that it computed
    before = {key: value.clone() for key, value in model.base.state_dict().items()}
    check_training(model, clip(1, 224, 224))
    assert all(value.device.type == "cpu" for value in model.base.state_dict().values())
    assert before.keys() == model.base.state_dict().keys()


WHOLE = {  # network, height and width: what comes before and after the cut
    "rexnet_100": 64,
    "hrnet_w18_small": 64,
    "efficientvim_m1": 64,
    "dla46x_c": 64,
    "levit_128s": 224,
    "eva02_tiny_patch14_224": 224,
    "xcit_nano_12_p16_224": 224,
    "cait_xxs24_224": 224,  # groups by a function
    "rdnet_tiny": 64,  # no coarse groups
    "pit_ti_224": 224,  # no groups
}
UNGROUPED = ("pit_ti_224",) if Version(timm.__version__) >= Version("1.0.31") else ("pit_ti_224", "levit_128s")
QUICK_WHOLE = ("rexnet_100", "levit_128s")


@pytest.mark.parametrize("network", some_slow(WHOLE, QUICK_WHOLE))
def test_a_network_that_is_run_as_a_whole(network):
    size = WHOLE[network]
    model = timm_model(network).eval()
    check_parts(model)
    assert len(list(model.trunk.parameters())) or network in UNGROUPED
    video = clip(2, size, size)
    config = model.base.pretrained_cfg
    mean, std = (torch.tensor(config[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    frames = model.forward_trunk(video)
    assert frames.dtype == torch.uint8
    assert torch.equal(frames, video.transpose(1, 2))
    with torch.no_grad():
        found = model.forward_backbone(frames)
        for t in range(2):
            expected = model.base((video[:, :, t].float() / 255 - mean) / std)
            torch.testing.assert_close(found[:, t], expected, rtol=1e-4, atol=1e-5)
    check_training(model, video)


def test_its_trunk_grows_and_shrinks_with_backbone_blocks():
    def trained(blocks):
        model = timm_model("eva02_tiny_patch14_224", backbone_blocks=blocks)
        check_parts(model)
        backbone = {id(p) for p in model.backbone.parameters()}
        return {name for name, p in model.base.named_parameters() if id(p) in backbone}

    one, two, everything = trained(1), trained(2), trained(13)
    assert {name.split(".")[1] for name in one if name.startswith("blocks.")} == {"11"}
    assert not any(name.startswith(("patch_embed", "cls_token", "pos_embed")) for name in two)
    assert {name for name in two - one if not name.startswith("blocks.10.")} == set()
    assert everything == {name for name, _ in timm_model("eva02_tiny_patch14_224").base.named_parameters()}


def test_it_is_told(caplog):
    with caplog.at_level("INFO"):
        timm_model("rexnet_100", backbone_blocks=3)
    assert "rexnet_100 does more than run its layers one after the other" in caplog.text
    assert "The last 3 of its 18 blocks train" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        timm_model("test_resnet")
    assert not caplog.text


def test_a_network_that_makes_no_features_is_refused(monkeypatch):
    monkeypatch.setattr("timm.models.ResNet.forward", lambda self, x: (x, x))
    with pytest.raises(
        InputError, match=r"model\.init_args\.network: test_resnet does not turn a picture of 160 x 160"
    ):
        timm_model("test_resnet")


class ZambaNetwork(nn.Module):
    """The network of the package zamba 2.7, from its description, with its names of weights."""

    def __init__(self, classes, num_frames):
        super().__init__()
        network = timm.create_model("efficientnetv2_rw_m")
        network.classifier = nn.Identity()
        last = [network.get_submodule("blocks.5"), network.conv_head, network.bn2, network.global_pool]
        self.backbone = nn.ModuleList(last)
        self.base = nn.ModuleDict({"module": network})
        self.classifier = nn.Sequential(
            nn.Linear(network.num_features, 256),
            nn.Dropout(0.2),
            nn.ReLU(),
            nn.Linear(256, 64),
            nn.Flatten(),
            nn.Linear(64 * num_frames, classes),
        )

    def forward(self, x):
        return self.classifier(self.base["module"](x.flatten(0, 1)).unflatten(0, x.shape[:2]))


@pytest.fixture(scope="module")
def zambas():
    """zamba's network for the classes c, a, b, and what its checkpoint holds."""
    torch.manual_seed(0)
    network = with_statistics(ZambaNetwork(3, num_frames=2)).eval()
    hyper_parameters = {"species": ["c", "a", "b"], "num_frames": 2, "model_class": "TimeDistributedEfficientNet"}
    return network, {"state_dict": network.state_dict(), "hyper_parameters": hyper_parameters}


@pytest.mark.parametrize(
    "class_names", some_slow([["c", "a", "b"], ["a", "b", "c"], ["a", "b", "d"]], [["a", "b", "d"]])
)
def test_zambas_checkpoint_gives_zambas_logits(zambas, folder, class_names):
    network, checkpoint = zambas
    torch.save(checkpoint, "zamba_time_distributed.ckpt")
    model = TimeDistributedEfficientNet(class_names, weights="zamba_time_distributed.ckpt", num_frames=2).eval()
    video = clip(2)
    mean, std = (torch.tensor(x).reshape(3, 1, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        expected = network(((video.float() / 255 - mean) / std).transpose(1, 2))
        found = model(video)
    if "d" in class_names:  # its head is for other classes; the rest is taken
        assert not torch.allclose(found, expected)
        theirs = network.base["module"].state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in model.base.state_dict().items())
    else:
        torch.testing.assert_close(found, expected[:, ["cab".index(name) for name in class_names]])
    check_parts(model)
    assert list(model.backbone)[:4] == [
        model.base.blocks[5],
        model.base.conv_head,
        model.base.bn2,
        model.base.global_pool,
    ]


@pytest.mark.slow
def test_predicts_with_as_many_frames_as_zambas_checkpoint(zambas, clips, folder):
    torch.save(zambas[1], "zamba_time_distributed.ckpt")
    (folder / "two").mkdir()
    for path in sorted(clips.glob("*.mp4"))[:2]:
        (folder / "two" / path.name).symlink_to(path)
    words = [
        "--model=TimeDistributedEfficientNet",
        "--model.weights=zamba_time_distributed.ckpt",
        "--data.num_workers=0",
    ]
    main(["predict", *words, "--data.videos=two", "--data.height=32", "--data.width=32", "--trainer.accelerator=cpu"])
    rows = read_csv(folder / "two_predictions/predictions.csv")
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert list(rows[0])[1:4] == ["c", "a", "b"]


def test_hyperparameters_of_lightnings_class_are_read_as_plain_values(zambas, folder):
    from lightning_fabric.utilities.data import AttributeDict

    _, checkpoint = zambas
    head = {key: value for key, value in checkpoint["state_dict"].items() if key.startswith("classifier.")}
    hyper_parameters = AttributeDict(checkpoint["hyper_parameters"])
    torch.save(
        {"state_dict": {"base.module.x": torch.zeros(1), **head}, "hyper_parameters": hyper_parameters}, "z.ckpt"
    )
    model = TimeDistributedEfficientNet(["c", "a", "b"], weights="z.ckpt", num_frames=2)
    assert torch.equal(model.head[5].weight, head["classifier.5.weight"])


def test_numbers_of_frames():
    model = TimeDistributedEfficientNet(["a", "b"], weights=None, num_frames=3)
    check_training(model, clip(3))
    with pytest.raises(InputError, match=r"model\.init_args\.num_frames is 3"):
        model(clip(2))
    with pytest.raises(InputError, match="num_frames"):
        TimeDistributedEfficientNet(["a", "b"], weights=None, num_frames=0)


def test_single_frame():
    model = SingleFrameResnet(["a", "b"], weights=None)
    check_parts(model)
    check_training(model, clip(1))
    assert model.backbone[0] is model.base.layer4
    assert model.forward_trunk(clip(1)).shape == (2, 1, 1024, 2, 3)
    with pytest.raises(InputError, match="one frame"):
        model(clip(2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["timm_efficientnet", "timm_convnext", "timm_vit", "timm_whole", "time_distributed", "single_frame_resnet"],
)
def test_fit_resume_test_and_predict(name, clips, folder):
    check_commands(name, clips, folder)


@pytest.mark.slow
def test_the_feature_cache_of_a_network_that_is_run_as_a_whole(clips, folder):
    """The frames are kept, and the frozen network's features: weights are those without it, before and after the unfreeze."""
    configs = ["--config", str(TINY), "--config", str(MODELS / "timm_whole.yaml")]
    words = ["fit", *configs, "--data.labels", str(clips / "labels.csv"), "--trainer.max_epochs=3"]
    states = []
    for more in ([], ["--trainer.callbacks+=FrozenFeatureCache", "--trainer.callbacks.dtype=bfloat16"]):
        main([*words, *more])
        (checkpoint,) = folder.glob(f"runs/timm_whole/version_{len(states)}/checkpoints/last.ckpt")
        states.append(torch.load(checkpoint, weights_only=True)["state_dict"])
    assert any(folder.glob("feature_cache/*/*.trunk"))
    for key, value in states[0].items():  # pixels are whole numbers that bfloat16 has
        torch.testing.assert_close(states[1][key], value, rtol=1e-3, atol=1e-5)


def test_weights_of_another_network_are_refused_with_the_one_that_fits(folder):
    torch.save(timm.create_model("tf_efficientnet_lite1").state_dict(), "weights.pth")
    text = "weights.pth is of another network.*It fits --model.init_args.network tf_efficientnet_lite1"
    with pytest.raises(InputError, match=text):
        timm_model("tf_efficientnet_lite0", weights="weights.pth")
    own = timm_model("test_vit")
    torch.save({"state_dict": {k: v for k, v in own.state_dict().items() if ".blocks.1." not in k}}, "part.ckpt")
    with pytest.raises(InputError, match=r"as base\.blocks\.1\."):
        timm_model("test_vit", weights="part.ckpt")
