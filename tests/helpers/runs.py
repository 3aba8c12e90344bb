"""What a run is stated with, and what it leaves."""

import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def cls(name, /, **init_args):
    return {"class_path": name, "init_args": init_args}


EACH_STEP = cls("ModelCheckpoint", filename="{step}", every_n_train_steps=1, save_top_k=-1)


def events_in(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    return events


def scalars(run_folder):
    """Steps and values by tag, without speeds, which are never the same twice."""
    events = events_in(run_folder)
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("speed/")]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def state(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def largest_difference(ours, theirs):
    """The largest difference of all numbers in two checkpoints' weights and optimizer states."""
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    pairs = [(ours["state_dict"][key], theirs["state_dict"][key]) for key in ours["state_dict"]]
    (a,), (b,) = ours["optimizer_states"], theirs["optimizer_states"]
    assert a["state"].keys() == b["state"].keys()
    assert a["param_groups"] == b["param_groups"]
    pairs += [(a["state"][i][key], b["state"][i][key]) for i in a["state"] for key in a["state"][i]]
    return max(float((x.double() - y.double()).abs().max()) for x, y in pairs)


def close(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max(float((ours[key].double() - theirs[key].double()).abs().max()) for key in ours)


def write_yaml(path, content):
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(content, file)
