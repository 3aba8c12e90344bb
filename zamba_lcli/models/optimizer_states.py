"""Whether an optimizer can continue from the state in a checkpoint, and initial values of what the state lacks."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zamba_lcli.errors import InputError

# what options of an optimizer add to its state: amsgrad, momentum, and centered of RMSprop
OPTIONAL = ("max_exp_avg_sq", "momentum_buffer", "grad_avg")


def fit_state(saved: dict[str, Any], stated_then: str | None, build: Callable[..., Optimizer]) -> None:
    """Makes an optimizer's state fit the optimizer that is stated now, in place; refuses that of another kind.

    What an option that is new needs begins here: the largest second moment with the present one, momenta at rest.

    Args:
        saved: The optimizer's ``state_dict`` in the checkpoint.
        stated_then: The class that was stated; None where the checkpoint does not name it.
        build: Builds the optimizer from parameter groups.

    Raises:
        InputError: Says what is lacking.
    """
    parameters = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))]
    built = build([{"params": parameters}])
    # numbers that one kind of optimizer has and another has not; flags come and go with torch's versions
    numbers = {k for k, v in built.defaults.items() if isinstance(v, float | tuple)}
    if lacking := numbers - saved["param_groups"][0].keys():
        raise _of_another(built, lacking)
    for group in built.param_groups:
        group.update(dict.fromkeys({"capturable", "fused", "foreach"} & set(group), False))  # they need other devices
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    built.step()
    needed = {key for state in built.state.values() for key in state}
    states: list[dict[str, Any]] = [state for state in saved["state"].values() if state]
    kept = {key for state in states for key in state}
    is_same = stated_then == class_name(built.__class__)
    if (states or stated_then is not None) and not is_same and needed - set(OPTIONAL) != kept - set(OPTIONAL):
        raise _of_another(built, (needed ^ kept) - set(OPTIONAL))
    for state in states:
        largest = max((t for t in state.values() if isinstance(t, Tensor)), key=Tensor.numel, default=None)
        for key in (needed & set(OPTIONAL)) - state.keys():
            if key == "max_exp_avg_sq":
                state[key] = state["exp_avg_sq"].clone()
            elif largest is not None:
                state[key] = torch.zeros_like(largest)


def builder_like(optimizer: Optimizer) -> Callable[[Any], Optimizer]:
    """Returns a callable that builds an optimizer of the same class and of the arguments found in its groups."""
    arguments = inspect.signature(type(optimizer)).parameters
    return partial(type(optimizer), **{k: v for k, v in optimizer.defaults.items() if k in arguments})


def class_name(kind: Any) -> str:
    """Returns the path of a class or function, in torch.optim that by which it is stated."""
    module, name = kind.__module__, kind.__qualname__
    is_public = module.startswith("torch.optim.") and getattr(torch.optim, name, None) is kind
    return f"torch.optim.{name}" if is_public else f"{module}.{name}"


def _of_another(built: Optimizer, differing: set[str]) -> InputError:
    return InputError(
        f"optimizer: the checkpoint is of another optimizer than {type(built).__name__}: they do not share "
        f"{', '.join(sorted(differing))}. Go on with the one it was made with, or begin a new run from its weights with "
        "model.init_args.weights."
    )
