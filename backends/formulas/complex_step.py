"""The array namespace for differentiating a formula by the complex step.

f'(x) = Im f(x + ih)/h has no cancellation, so a tiny h gives the derivative to rounding (Squire and Trapp, SIAM
Review 40, 1998). For piecewise analytic functions, the real part must select the piece, and |z| must be continued
analytically (Martins, Sturdza and Alonso, ACM TOMS 29, 2003). NumPy orders complex numbers by their real parts and
then by their imaginary parts, so comparisons, maximum and minimum need no change; at a kink they give the derivative
from the right. In NumPy, abs is the modulus and sign the phase: these two, floor and astype are replaced.
"""

from typing import Any

import numpy as np


class ComplexStepNamespace:
    """NumPy with |z|, sign, floor and astype continued from the real axis."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def abs(z: Any) -> Any:
        """z or −z, whichever has the larger real part."""
        return np.where(np.asarray(z) < 0, -z, z)

    @staticmethod
    def sign(z: Any) -> Any:
        """The sign of the real part; its derivative is 0."""
        return np.sign(np.real(z))

    @staticmethod
    def floor(z: Any) -> Any:
        """The floor of the real part; its derivative is 0."""
        return np.floor(np.real(z))

    @staticmethod
    def astype(x: Any, dtype: Any, *, copy: bool = True) -> Any:
        """Convert an array to another dtype; bits come from the real part, with derivative 0."""
        return np.asarray(np.real(x) if dtype == np.uint32 else x).astype(dtype, copy=copy)


complex_step_namespace = ComplexStepNamespace()
