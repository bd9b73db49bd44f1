"""Headers of .npy files whose arrays are written piece by piece, or whose elements need not be read.

Ordinary writes fail with the system's error on a full disk; np.save loses its number, and a process that fills a
memory map, which reserves nothing, dies of SIGBUS: https://github.com/numpy/numpy/issues/21964
"""

from typing import Any, BinaryIO

import numpy as np


def write_npy_header(file: BinaryIO, dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> None:
    """Write what comes before the elements, which follow in C order; numpy leaves room for more rows to come."""
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": description})


def read_npy_header(file: BinaryIO) -> "tuple[np.dtype[Any], tuple[int, ...]]":
    """Type and shape of the elements, which follow; ValueError where there is no such header."""
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return dtype, shape
