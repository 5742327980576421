"""Reads PyTorch's own files (`pytorch_model.bin`) with PyTorch, without running code in them."""

import importlib
import pickle
from typing import Any

import ml_dtypes
import numpy as np

from converters.arrays import HeldLeaf, held
from converters.errors import CheckpointError, MappingError
from converters.huggingface.files.pointer import refuse_pointer
from converters.stores import Store

OTHER_DTYPES = {"torch.bfloat16": ("int16", ml_dtypes.bfloat16)}  # tensors that NumPy cannot view


def read_torch(store: Store, key: str) -> dict[str, HeldLeaf]:
    """Read the tensors of a file that `torch.save` wrote: name -> leaf.

    Files from PyTorch before 1.6 cannot be memory-mapped, and are read as a whole.

    Raises:
        MappingError: PyTorch is not installed.
        CheckpointError: the file is damaged, or holds more than tensors.
    """
    refuse_pointer(store, key)  # for which PyTorch would be installed in vain
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise MappingError(
            f"{store.url}/{key}: only PyTorch can read it, and it is not installed: pip install "
            "torch, or save the model as safetensors (`save_pretrained` of transformers)"
        ) from error
    path = store.local_path(key)
    try:
        try:
            found = torch.load(path, "cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            found = torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # PyTorch's own message advises to run the file's code
        raise CheckpointError(
            f"{store.url}/{key}: holds more than tensors, or is damaged; it is not unpickled. Take "
            "the model's safetensors."
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise CheckpointError(f"{store.url}/{key}: cannot be read: {reason}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{store.url}/{key}: holds a {type(found).__name__}, no tensors")
    odd = [name for name, value in found.items() if not _is_dense(torch, value)]
    if odd:
        raise CheckpointError(
            f"{store.url}/{key}: {odd[0]} is {_what(found[odd[0]])}; only dense tensors are weights"
        )
    leaves = {}
    for name, tensor in found.items():
        leaves[name] = held(name, _array(torch, tensor.detach()), key)
    return leaves


def _is_dense(torch: Any, value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and not value.is_complex()
    )


def _what(value: Any) -> str:
    return f"{type(value).__name__} {getattr(value, 'dtype', '')}".strip()


def _array(torch: Any, tensor: Any) -> np.ndarray:
    """The tensor as an array that shares its memory."""
    bits, dtype = OTHER_DTYPES.get(str(tensor.dtype), ("", None))
    return tensor.view(getattr(torch, bits)).numpy().view(dtype) if bits else tensor.numpy()
