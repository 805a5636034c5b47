"""Products by cuBLASLt, which can do something to the result before it is written: an epilogue.

The bindings are nvmath-python's. A `Matmul` says in numbers what is wanted, in column order as cuBLAS has it; a `Plan`
is that for the library: descriptors on the host, and the algorithm that it chose for them.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

_POINTERS_ON_DEVICE = 1
_FLOAT = 0  # CUDA_R_32F: the type of α and β, and of all that an epilogue adds
_NOT_SUPPORTED = 15  # CUBLAS_STATUS_NOT_SUPPORTED
_ALIGNED = 256  # bytes; more than that helps no algorithm


class Epilogue(IntEnum):
    """What is done to P = α op(A) op(B) + β D, of m rows: numbers and names of cublasLtEpilogue_t.

    BIAS adds a vector of m entries to each column; RELU and GELU (the approximation by tanh) follow it. With AUX they
    leave what their derivatives take, and DRELU and DGELU multiply P by those. BGRADB gives P as it is, and beside it
    the sums of op(B) over its rows.
    """

    BIAS = 4
    RELU_BIAS = 6
    RELU_AUX_BIAS = 134
    DRELU = 136
    GELU_BIAS = 36
    GELU_AUX_BIAS = 164
    DGELU = 192
    BGRADB = 512


class Place(NamedTuple):
    """A matrix in column order: its address, its type's number, and the distance of its columns in entries."""

    pointer: int
    kind: int
    ld: int


class Matmul(NamedTuple):
    """D ← epilogue(α op(A) op(B) + β D), with op(A) of m rows, op(B) of n columns, and k between them.

    α and β are float32, on the device. `bias` is the address of the vector that is added, or for BGRADB of the n sums
    that are written. `aux` is that of RELU's bits, one for each entry of D, or of GELU's inputs, both in column order
    with `aux_ld` entries from one column to the next.
    """

    transposed: tuple[int, int]
    sizes: tuple[int, int, int]
    a: Place
    b: Place
    d: Place
    alpha: int
    beta: int
    compute: int
    epilogue: Epilogue
    bias: int
    aux: int
    aux_ld: int


class Plan:
    """A `Matmul` as cuBLASLt takes it; `algorithm` is None if it has none for it."""

    def __init__(self, handle: int, matmul: Matmul, workspace_size: int) -> None:
        self._layouts: list[int] = []
        self._operation = 0
        from nvmath.bindings import cublasLt

        self._lt, self.matmul = cublasLt, matmul
        self._operation = cublasLt.matmul_desc_create(matmul.compute, _FLOAT)
        self._describe(matmul)
        self._best = np.zeros(1, cublasLt.matmul_heuristic_result_dtype)
        at = self._best.ctypes.data + self._best.dtype.fields["algo"][1]
        self.algorithm: int | None = at if self._choose(handle, workspace_size) else None

    def run(self, handle: int, workspace: int, size: int, stream: int) -> None:
        """Do it, on a stream."""
        m, (a, b, d) = self.matmul, self._layouts
        self._lt.matmul(
            handle, self._operation, m.alpha, m.a.pointer, a, m.b.pointer, b, m.beta, m.d.pointer, d, m.d.pointer, d,
            self.algorithm, workspace, size, stream,
        )  # fmt: skip

    def _describe(self, m: Matmul) -> None:
        name = self._lt.MatmulDescAttribute
        given = {
            name.POINTER_MODE: _POINTERS_ON_DEVICE, name.TRANSA: m.transposed[0], name.TRANSB: m.transposed[1],
            name.EPILOGUE: m.epilogue,
        }  # fmt: skip
        if m.bias:
            given[name.BIAS_POINTER] = m.bias
        if m.aux:
            given |= {name.EPILOGUE_AUX_POINTER: m.aux, name.EPILOGUE_AUX_LD: m.aux_ld}
        for attribute, value in given.items():
            number = np.array(value, self._lt.get_matmul_desc_attribute_dtype(attribute))
            self._lt.matmul_desc_set_attribute(self._operation, attribute, number.ctypes.data, number.nbytes)
        rows, columns, inner = m.sizes
        for place, (down, across), transposed in (
            (m.a, (rows, inner), m.transposed[0]), (m.b, (inner, columns), m.transposed[1]), (m.d, (rows, columns), 0),
        ):  # fmt: skip
            shape = (across, down) if transposed else (down, across)
            self._layouts.append(self._lt.matrix_layout_create(place.kind, *shape, place.ld))

    def _choose(self, handle: int, workspace_size: int) -> bool:
        """Ask for the algorithm that is expected to be the fastest."""
        name, found = self._lt.MatmulPreferenceAttribute, np.zeros((), np.int32)
        a, b, d = (min(_ALIGNED, p.pointer & -p.pointer) for p in (self.matmul.a, self.matmul.b, self.matmul.d))
        preference = self._lt.matmul_preference_create()
        try:
            for attribute, value in (
                (name.MAX_WORKSPACE_BYTES, workspace_size), (name.MIN_ALIGNMENT_A_BYTES, a),
                (name.MIN_ALIGNMENT_B_BYTES, b), (name.MIN_ALIGNMENT_C_BYTES, d), (name.MIN_ALIGNMENT_D_BYTES, d),
            ):  # fmt: skip
                number = np.array(value, self._lt.get_matmul_preference_attribute_dtype(attribute))
                self._lt.matmul_preference_set_attribute(preference, attribute, number.ctypes.data, number.nbytes)
            layouts = (*self._layouts, self._layouts[-1])  # C is D
            self._lt.matmul_algo_get_heuristic(
                handle, self._operation, *layouts, preference, 1, self._best.ctypes.data, found.ctypes.data
            )
        except self._lt.cuBLASLtError as error:
            if error.status != _NOT_SUPPORTED:
                raise
            return False
        finally:
            self._lt.matmul_preference_destroy(preference)
        return bool(found) and int(self._best["state"][0]) == 0

    def __del__(self) -> None:
        for layout in self._layouts:
            self._lt.matrix_layout_destroy(layout)
        if self._operation:  # it may have failed to be made
            self._lt.matmul_desc_destroy(self._operation)
