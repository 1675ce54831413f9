"""A stand-in for a CUDA or MPS device, where there is none: its tensors compute on the CPU and refuse to mix with it.

What it cannot show: kernels of the device, their rounding, and what autocast casts there.
"""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from transformers.utils import import_utils

NAME = "NVIDIA Stand-in"

# Operations that devices run also with tensors on the CPU among their arguments.
_ACROSS_DEVICES = {"aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put", "aten::index_put_"}


_WAITS: list[str] = []


class DeviceTensor(torch.Tensor):
    """A tensor on the stand-in; `values` is a CPU tensor with its contents.

    To torch's C++ code it is on "meta", a device that needs no driver.
    """

    @staticmethod
    def __new__(cls, values: torch.Tensor, device: torch.device):
        return torch.Tensor._make_wrapper_subclass(
            cls, values.size(), values.stride(), values.storage_offset(), dtype=values.dtype, device="meta"
        )

    def __init__(self, values: torch.Tensor, device: torch.device):
        self.values, self._device = values, device

    device = property(lambda self: self._device)
    is_cuda = property(lambda self: self._device.type == "cuda")
    is_mps = property(lambda self: self._device.type == "mps")
    is_meta = property(lambda self: False)

    # What torch computes without asking __torch_dispatch__:
    def tolist(self):
        _WAITS.append("tolist")
        return self.values.tolist()

    def untyped_storage(self):
        return self.values.untyped_storage()

    def data_ptr(self):
        return self.values.data_ptr()

    def new_tensor(self, data, *, dtype=None, device=None):
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device)

    def __repr__(self, **kwargs):
        return f"DeviceTensor({self.values!r}, {self._device})"

    # With these two, Module.to() exchanges the contents of its parameters; without, it loses `values`.
    def __tensor_flatten__(self):
        return ["values"], self._device

    @staticmethod
    def __tensor_unflatten__(inner, device, size, stride):
        return DeviceTensor(inner["values"], device)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class _Meta(TorchFunctionMode):
    """Has "meta" where the caller names the device, for torch's C++ code would look for a driver."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.names = {device, torch.device(device.type), str(device), device.type}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def translate(value):
            return "meta" if isinstance(value, (str, torch.device)) and value in self.names else value

        kwargs = kwargs or {}
        if function is torch.device:
            return function(*args, **kwargs)
        if function in (torch.tensor, torch.as_tensor) and translate(kwargs.get("device")) == "meta":
            return function(*args, **{**kwargs, "device": "cpu"}).to("meta")  # made on "meta", it would be empty
        return function(*map(translate, args), **{name: translate(value) for name, value in kwargs.items()})


class _Dispatch(TorchDispatchMode):
    """Sees also the operations without a tensor on the device, for some of them put one there."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.target = device

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {}, self.target)


def _run(function, args, kwargs, target=None):
    name = function._schema.name
    if name == "aten::_pin_memory":
        return args[0].clone()
    if name == "aten::is_pinned":
        return False
    kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    ours = {id(tensor.values): tensor for tensor in tensors if isinstance(tensor, DeviceTensor)}
    target = next(iter(ours.values())).device if ours else target
    on_cpu = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor) and tensor.ndim]
    if ours and on_cpu and name not in _ACROSS_DEVICES:
        raise RuntimeError(f"{name}: expected all tensors on one device, found {target} and cpu.")
    if ours and name.startswith("aten::index") and not isinstance(args[0], DeviceTensor):
        raise RuntimeError(f"{name}: indices on {target} for a tensor on cpu.")
    if _waits(name, args, kwargs):
        _WAITS.append(name)
    there = bool(ours)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type != "cpu"  # "meta" where torch took it from a tensor's C++ side
        kwargs = {**kwargs, "device": "cpu"}
    generator = kwargs.get("generator")
    if there and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{name}: expected a generator on {target}, found one on cpu.")
    if ours and torch.Tag.inplace_view in function.tags:
        with no_dispatch():  # the wrapper's shape
            function(*args, **kwargs)
    args, kwargs = tree_map_only(DeviceTensor, lambda tensor: tensor.values, (args, kwargs))

    def wrap(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) in ours:  # changed in place
            return ours[id(tensor)]
        if there and target.type == "mps" and tensor.dtype == torch.float64:
            raise TypeError(f"{name}: MPS has no float64.")
        return DeviceTensor(tensor, target) if there else tensor

    return tree_map_only(torch.Tensor, wrap, function(*args, **kwargs))


class _Event:
    """An event of the stand-in, which is never behind the host."""

    def __init__(self, device=None):
        pass

    def record(self):
        pass

    def synchronize(self):
        pass


def _waits(name: str, args, kwargs) -> bool:
    """Whether the host waits for the device in an operation: for its values, or for the shape that they determine."""
    there = bool(args) and isinstance(args[0], DeviceTensor)
    if name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::_unique2", "aten::masked_select"):
        return there
    if name == "aten::index":
        return there and any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if name == "aten::copy_":
        return there != isinstance(args[1], DeviceTensor) and len(args) < 3 and not kwargs.get("non_blocking", False)
    if name == "aten::_to_copy" and kwargs.get("device") is not None:
        return there == (torch.device(kwargs["device"]).type == "cpu") and not kwargs.get("non_blocking", False)
    return False


@contextlib.contextmanager
def host_waits():
    """The names of operations, in this context, for which the host waits for the stand-in."""
    _WAITS.clear()
    yield _WAITS


def _forget_devices() -> None:
    """Libraries look for devices once a process."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    for name, function in vars(import_utils).items():
        if name.startswith("is_torch_") and hasattr(function, "cache_clear"):
            function.cache_clear()


@contextlib.contextmanager
def fake_device(device_type: str, count: int = 1):
    """torch as on a machine with devices of a type, "cuda" or "mps", for as long as the context lasts."""
    device = torch.device(device_type, 0)
    stream = SimpleNamespace(is_capturing=lambda: False)
    state = torch.zeros(16, dtype=torch.uint8)  # of the device's random numbers
    replaced = {
        torch.accelerator: {
            "is_available": lambda: True,
            "current_stream": lambda device=None: stream,
            "synchronize": lambda device=None: None,
        },
        torch.cuda: {
            "is_available": lambda: True,
            "is_bf16_supported": lambda including_emulation=True: True,
            "device_count": lambda: count,
            "current_device": lambda: 0,
            "is_current_stream_capturing": lambda: False,
            "device": lambda device: contextlib.nullcontext(),
            "set_device": lambda device: None,
            "get_device_name": lambda device=None: NAME,
        },
        torch.cuda.random: {"get_rng_state": lambda: state, "set_rng_state": lambda state: None},
        # Autocast casts nothing there, so nothing may be cast in its stead.
        torch: {"Event": _Event, "is_autocast_enabled": lambda device_type=None: False},
        torch.mps: {"empty_cache": lambda: None},
        torch.backends.mps: {
            "is_available": lambda: True,
            "is_built": lambda: True,
            "is_macos_or_newer": lambda major, minor: True,
        },
    }
    del replaced[torch.cuda if device_type == "mps" else torch.backends.mps]
    with pytest.MonkeyPatch.context() as patch:
        for module, functions in replaced.items():
            for name, function in functions.items():
                patch.setattr(module, name, function)
        _forget_devices()
        try:
            with _Meta(device), _Dispatch(device):
                yield device
        finally:
            _forget_devices()
