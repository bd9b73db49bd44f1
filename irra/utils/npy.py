"""Headers of .npy files, for arrays that are written piece by piece or whose elements need not be read.

On a full disk, ordinary writes fail with the system's errno. np.save loses the errno, and a process that fills a memory
map, which reserves no space, dies of SIGBUS: https://github.com/numpy/numpy/issues/21964
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def write_npy_header(file: BinaryIO, dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> None:
    """Write the header; the elements follow in C order. numpy pads it, so that the number of rows may grow later."""
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": description})


def read_npy_header(file: BinaryIO) -> "tuple[np.dtype[Any], tuple[int, ...]]":
    """Read the header: type and shape of the elements that follow.

    Raises:
        ValueError: There is no valid header.
    """
    try:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # numpy's parser fails in many ways on a damaged header
        raise ValueError(str(error)) from error
    return dtype, shape


def map_npy(path: Path, dtype: str, shape: tuple[int | None, ...]) -> "np.ndarray[Any, Any]":
    """Memory-map an array of this type and shape, in which None stands for any number.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or holds something else.
    """
    try:
        array: np.ndarray[Any, Any] = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(str(error)) from error
    wanted = tuple(size if size is not None else found for size, found in zip(shape, array.shape, strict=False))
    if array.dtype != dtype or array.shape != wanted or not array.flags.c_contiguous:
        raise ValueError(f"holds {array.dtype} {array.shape}, expected {dtype} {shape}")
    return array
