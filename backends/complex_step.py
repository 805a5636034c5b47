"""The array namespace in which a formula can be differentiated by the complex step.

f'(x) = Im f(x + ih)/h has no cancellation, so a tiny h gives the derivative to rounding (Squire and Trapp, SIAM
Review 40, 1998). For functions made of analytic pieces, the piece must be chosen by the real part, and |z| continued
analytically (Martins, Sturdza and Alonso, ACM TOMS 29, 2003). NumPy orders complex numbers by their real parts and
then by their imaginary parts, so comparisons, maximum and minimum are right as they are, and at a kink give the
derivative from the right. |z| is a modulus in NumPy and sign a phase: those two and floor are replaced.
"""

from typing import Any

import numpy as np


class ComplexStepNamespace:
    """NumPy with |z|, sign and floor continued from the real axis."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def abs(z: Any) -> Any:
        """Z or −z, whichever has the larger real part."""
        return np.where(np.asarray(z) < 0, -z, z)

    @staticmethod
    def sign(z: Any) -> Any:
        """The sign of the real part; its derivative is 0."""
        return np.sign(np.real(z))

    @staticmethod
    def floor(z: Any) -> Any:
        """The floor of the real part; its derivative is 0."""
        return np.floor(np.real(z))


complex_step_namespace = ComplexStepNamespace()
