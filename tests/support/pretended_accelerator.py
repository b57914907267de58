"""An accelerator that is none: tensors that say they are on Apple's, computed on the CPU, and refuse what it refuses.

As on a real one, double precision is an error, and so are operations on tensors of both devices (a CPU scalar is fine).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

ACCELERATOR = torch.device("mps")
CPU = torch.device("cpu")
_INSIDE = torch.device("meta")  # what PyTorch's C++ code is told, since it would look for a real accelerator


class AcceleratorError(RuntimeError):
    """What a real accelerator would not do."""


class AcceleratorTensor(Tensor):
    """A tensor that says it is on the accelerator."""

    @staticmethod
    def __new__(cls, values: Tensor):
        if values.dtype in (torch.float64, torch.complex128):
            raise AcceleratorError(f"double precision on the accelerator: {values.dtype}")
        return Tensor._make_wrapper_subclass(
            cls, values.shape, values.stride(), values.storage_offset(), dtype=values.dtype, device=_INSIDE
        )

    def __init__(self, values: Tensor):
        self.values = values

    @property
    def device(self):
        return ACCELERATOR

    def __repr__(self):
        return f"AcceleratorTensor({self.values})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


def _run(operation: Any, args: tuple, kwargs: dict) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = any(isinstance(tensor, AcceleratorTensor) for tensor in tensors)
    device = kwargs.get("device")
    if device is not None:
        there = torch.device(device).type in (ACCELERATOR.type, _INSIDE.type)
        kwargs = kwargs | {"device": CPU}
    elif there and operation not in _MIXING:
        strangers = [tensor for tensor in tensors if not isinstance(tensor, AcceleratorTensor) and tensor.ndim > 0]
        if strangers:
            raise AcceleratorError(f"{operation} mixes tensors of both devices: {[s.shape for s in strangers]}")
    args, kwargs = tree_map_only(AcceleratorTensor, lambda tensor: tensor.values, (args, kwargs))
    result = operation(*args, **kwargs)
    if operation._schema.is_mutable:
        originals = {id(tensor.values): tensor for tensor in tensors if isinstance(tensor, AcceleratorTensor)}
        return tree_map_only(Tensor, lambda tensor: originals.get(id(tensor), tensor), result)
    return tree_map_only(Tensor, AcceleratorTensor, result) if there else result


#: Operations that take tensors of another device: copies, and indices that may lie on the CPU.
_MIXING = {
    torch.ops.aten.copy_.default,
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put_.default,
    torch.ops.aten.index_put.default,
    torch.ops.aten._index_put_impl_.default,
}


class _Dispatch(TorchDispatchMode):
    """Brings what is made on the accelerator, and not of tensors that are there, to the rules above."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


class _Moves(TorchFunctionMode):
    """Carries tensors to the accelerator where PyTorch itself would look for a real one."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        is_there = bool(args) and isinstance(args[0], AcceleratorTensor)
        if function is Tensor.tolist and is_there:
            return args[0].values.tolist()
        if function is Tensor.to and not is_there:
            return self._to(*args, **kwargs)
        if function is Tensor.new_tensor and is_there:
            kwargs = {"dtype": args[0].dtype, "device": ACCELERATOR} | kwargs
            function, args, is_there = torch.tensor, args[1:], False
        if not is_there and _is_there(kwargs.get("device")):
            made = function(*args, **kwargs | {"device": CPU})
            return to_accelerator(made) if isinstance(made, Tensor) else made
        if is_there:
            args, kwargs = tree_map(lambda value: _INSIDE if _is_there(value) else value, (args, kwargs))
        return function(*args, **kwargs)

    def _to(self, values, *args, **kwargs):
        places: list[Any] = [*args, *kwargs.values()]
        other = next((place for place in places if isinstance(place, AcceleratorTensor)), None)
        if other is not None:
            return to_accelerator(values.to(other.dtype))
        if not any(_is_there(place) for place in places):
            return values.to(*args, **kwargs)
        args = tuple(CPU if _is_there(place) else place for place in args)
        kwargs = {name: CPU if _is_there(place) else place for name, place in kwargs.items()}
        return to_accelerator(values.to(*args, **kwargs))


def _is_there(device: Any) -> bool:
    return str(device).partition(":")[0] == ACCELERATOR.type if isinstance(device, str | torch.device) else False


class _ToAccelerator(torch.autograd.Function):
    """Keeps the graph on the way there."""

    @staticmethod
    def forward(ctx, values):
        return AcceleratorTensor(values.detach())

    @staticmethod
    def backward(ctx, gradient):
        return gradient.cpu()


def to_accelerator(values: Tensor) -> Tensor:
    return _ToAccelerator.apply(values) if values.requires_grad else AcceleratorTensor(values)


def module_to_accelerator(module: nn.Module) -> nn.Module:
    """Put a module's parameters and buffers there, in place; what is shared stays shared."""
    moved: dict[int, Any] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and not isinstance(parameter, AcceleratorTensor):
                if id(parameter) not in moved:
                    new = nn.Parameter(AcceleratorTensor(parameter.detach()), parameter.requires_grad)
                    moved[id(parameter)] = (parameter, new)
                part._parameters[name] = moved[id(parameter)][1]
        for name, buffer in part._buffers.items():
            if buffer is not None and not isinstance(buffer, AcceleratorTensor):
                part._buffers[name] = AcceleratorTensor(buffer)
    return module


@contextmanager
def pretended_accelerator() -> Iterator[Callable[[Any], Any]]:
    """Run code as if there were an accelerator; yields what moves tensors in any structure there."""
    generator = torch.Generator
    of_cpu = mock.patch.object(torch, "Generator", lambda device=CPU: generator(CPU if _is_there(device) else device))
    with _Dispatch(), _Moves(), of_cpu:
        yield lambda values: tree_map_only(Tensor, to_accelerator, values)


def to_cpu(values: Any) -> Any:
    """Tensors in any structure, on the CPU."""
    return tree_map_only(AcceleratorTensor, lambda tensor: tensor.detach().values, values)
