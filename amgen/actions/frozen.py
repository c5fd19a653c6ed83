"""A frozen view of a network: its parameters in eval mode and without gradients, while the network itself stays as it is."""

from types import MethodType
from typing import Any, TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def frozen_view(network: Network) -> Network:
    """Return a copy of a network in eval mode that shares its weights and computes no gradients in them.

    Only the tree of modules is copied. Parameters are detached tensors on the same storage, and buffers are the same tensors. So an
    optimiser's step on the network, or `load_state_dict`, changes the view as well. The modes and flags of the network are not touched,
    neither now nor when the view is evaluated. Other attributes of the modules are shared, but methods that were set on a module, as by
    accelerate, become methods of its copy, and a module that was compiled is not compiled in the view.

    A network that is later moved to another device, or cast to another type, has new storage and needs a new view.

    Example:
        >>> import torch
        >>> from amgen.actions import frozen_view
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
        >>> view = frozen_view(network)
        >>> network.training, view.training, view[0].weight.requires_grad
        (True, False, False)
        >>> _ = network[0].weight.data.zero_()
        >>> view[0].weight.tolist()
        [[0.0, 0.0], [0.0, 0.0]]
    """
    modules: dict[int, nn.Module] = {}
    tensors: dict[int, Tensor] = {}

    def view(parameter: Tensor | None) -> Tensor | None:
        if parameter is None:
            return None
        if id(parameter) not in tensors:  # tied parameters stay tied
            tensors[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        return tensors[id(parameter)]

    def copy(module: nn.Module) -> nn.Module:
        if id(module) not in modules:
            copied = modules[id(module)] = object.__new__(type(module))

            def own(value: Any) -> Any:
                return MethodType(value.__func__, copied) if isinstance(value, MethodType) and value.__self__ is module else value

            copied.__dict__ = {
                **{name: own(value) for name, value in module.__dict__.items()},
                "_compiled_call_impl": None,  # it would call the network itself, in its mode
                "training": False,
                "_parameters": {name: view(parameter) for name, parameter in module._parameters.items()},
                "_buffers": dict(module._buffers),
                "_modules": {name: None if child is None else copy(child) for name, child in module._modules.items()},
            }
        return modules[id(module)]

    return copy(network)  # type: ignore[return-value]
