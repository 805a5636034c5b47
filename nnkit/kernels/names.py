"""Names that users type: an unknown one gets an error with those that are near."""

from collections.abc import Iterable


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """The error for an unknown name of some kind: with the nearest names, or all if none is near.

    >>> unknown_name("cost", "cross_entropi", ["quadratic", "cross_entropy"])
    ValueError("unknown cost 'cross_entropi'; did you mean 'cross_entropy'?")
    """
    import difflib  # a millisecond that only an error should cost

    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=2)
    listed = ", ".join(names[:30]) + (f", ... ({len(names)} in all)" if len(names) > 30 else "")
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {listed}"
    return ValueError(f"unknown {kind} {name!r}; {hint}")
