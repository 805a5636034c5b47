"""The equations of the lecture with their measured errors, and gradient checks by the complex step."""

from nnkit.verify.equations import BOUND, Row, as_json, as_markdown, as_text, verify

__all__ = ["BOUND", "Row", "as_json", "as_markdown", "as_text", "verify"]


def __dir__() -> list[str]:
    return sorted(__all__)
