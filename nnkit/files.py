"""Files that are either whole or as they were before, and locks on them."""

import hashlib
import io
import os
import re
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None  # type: ignore[assignment]

# Bytes of a name up to which a temporary name holds the whole of it. File systems allow 255 bytes, some 143.
_LONG = 100


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes the place of `path` when the block ends well.

    It is written beside `path`, flushed to the disk and renamed; if the block or the disk fails, `path` is untouched
    and nothing is left over. It has the mode of the file that it replaces. What a process left that was killed before
    is removed. A symbolic link stays, and what it points to is replaced. What is not a regular file, such as a pipe or
    /dev/stdout, cannot be replaced: all is written into it when the block ends well. Raises OSError if it cannot be
    written.
    """
    if is_special(path):
        content = io.BytesIO()
        yield content
        with _naming(path), open(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as special:
            special.write(content.getbuffer())
        return
    target = os.path.realpath(path)
    _remove_leftovers(target)
    file, temporary = _temporary(target)
    try:
        with _naming(path), file:
            yield file
            file.flush()
            _take_after(target, file)
            os.fsync(file.fileno())
            if fcntl is not None:  # while it is locked, or somebody would take it for a leftover
                os.replace(temporary, target)
        if fcntl is None:  # Windows renames no file that is open
            os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _flush_folder(os.path.dirname(target))


@contextmanager
def _naming(path: str | PathLike[str]) -> Iterator[None]:
    """Let the system's errors while a file is written, such as of a full disk, have its name."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # NumPy's, of an array that was not written whole
            error.add_note(os.fspath(path))
        elif error.filename is None:
            error.filename = os.fspath(path)
        raise


def writable(path: str | PathLike[str], name: str) -> Path:
    """The path, if a file can be written there; TypeError or OSError, which call it `name`, before any work is done."""
    path = _path(path, name)
    kind = _kind(path, f"{name}: ")
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(f"{name}: {path} is a folder; expected a file")
    if stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
        raise OSError(f"{name}: {path} is a {'disk' if stat.S_ISBLK(kind) else 'socket'}; expected a file")
    if is_special(path):
        if not _may_write(path):
            raise PermissionError(f"{name}: {path} cannot be written to")
        return path
    folder = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: the folder {folder} does not exist")
    if not _may_write(folder):
        raise PermissionError(f"{name}: the folder {folder} cannot be written to")
    return path


def existing_file(path: str | PathLike[str], name: str = "path") -> Path:
    """The path of a file that can be read; TypeError, which calls it `name`, or OSError says what it is instead."""
    path = _path(path, name)
    kind = _kind(path)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(f"{path}: a folder; expected a file")
    if not kind:
        raise FileNotFoundError(f"{path}: no such file")
    if not stat.S_ISREG(kind):
        raise OSError(f"{path}: a device or a pipe; expected a file")
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(f"{path}: may not be read")
    return path


def _path(path: str | PathLike[str], name: str) -> Path:
    if not isinstance(path, str | PathLike):
        raise TypeError(f"{name} is {path!r}; expected the path of a file")
    return Path(path)


@contextmanager
def locked(path: str | PathLike[str]) -> Iterator[None]:
    """Be the only one that has this file's lock, until the block or this process ends; BlockingIOError if another is.

    The lock is on a file beside `path`, called so with .lock, which is removed in the end. A file has one lock whatever
    name it is given by; what is not a regular file has none.
    """
    if is_special(path):
        yield
        return
    target = os.path.realpath(path)
    beside = _beside(target, "", ".lock")
    file = _locked_file(beside)
    _held.add(file)
    try:
        yield
    finally:
        _held.discard(file)
        if fcntl is not None and not file.closed:  # before it is let go: see _locked_file
            with suppress(FileNotFoundError):
                os.unlink(beside)
        file.close()
        if fcntl is None:
            with suppress(OSError):  # Windows removes no file that another process has opened
                os.unlink(beside)


_held: set[IO[bytes]] = set()  # files that this process has locked


def _forked() -> None:
    """In a child process, close what it has inherited: a lock ends with the process that took it."""
    while _held:
        _held.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _remove_leftovers(target: str) -> None:
    """Remove what processes that were killed have left of a file: temporary files that nobody writes any more."""
    name = re.compile(re.escape(os.path.basename(_beside(target, ".", "."))) + r"[0-9a-f]{12}\.part")
    with os.scandir(os.path.dirname(target)) as entries:
        found = [entry.path for entry in entries if name.fullmatch(entry.name)]
    for leftover in found:
        with suppress(OSError):
            if fcntl is None:  # on Windows it is not locked between its last byte and its new name
                if os.path.getmtime(leftover) < time.time() - 3600:
                    os.unlink(leftover)
                continue
            with open(leftover, "r+b") as file:
                if _lock(file):
                    os.unlink(leftover)


def _temporary(target: str) -> tuple[IO[bytes], str]:
    """A new file beside the target, as a rename is atomic within one file system only; its name is nobody else's."""
    mode = 0o600 if os.path.exists(target) else 0o666  # others see no content before the mode of the target is known
    while True:
        temporary = _beside(target, ".", f".{os.urandom(6).hex()}.part")
        file = open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        # Locked while it is written, so that nobody takes it for a leftover; somebody may have, just before.
        with suppress(OSError):
            _lock(file, wait=True)
        if os.path.exists(temporary):
            return file, temporary
        file.close()


def _beside(target: str, before: str, after: str) -> str:
    """A name in the target's folder made of its own, or of a digest where that is so long that the sum might not do."""
    folder, name = os.path.split(target)
    encoded = os.fsencode(name)
    if len(encoded) > _LONG:
        name = hashlib.sha256(encoded).hexdigest()[:32]
    return os.path.join(folder, f"{before}{name}{after}")


def _take_after(target: str, file: IO[bytes]) -> None:
    """Give a file the mode, and where this process may the owner, of the one that it is to replace."""
    if not hasattr(os, "fchmod"):
        return
    try:
        old = os.stat(target)
    except FileNotFoundError:
        return
    with suppress(PermissionError):
        os.fchown(file.fileno(), old.st_uid, old.st_gid)
    os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))


def _flush_folder(folder: str) -> None:
    """Bring a new name to the disk, too, where the system lets folders be opened."""
    if hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):  # some file systems cannot, and the file itself is there
            descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _locked_file(name: str) -> IO[bytes]:
    """A file of this name that is open and locked; BlockingIOError if another process has locked it."""
    while True:
        file = open(name, "ab")  # noqa: SIM115
        try:
            if not _lock(file):
                raise BlockingIOError(name)
            # Who had it before may have removed it after it was opened here: then the name is another file's, or free.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(name), os.fstat(file.fileno())):
                    return file
        except BlockingIOError:
            file.close()
            raise
        except OSError as error:
            warnings.warn(f"{name} cannot be locked ({error}): let no other process write this file", stacklevel=5)
            return file
        file.close()


def _lock(file: IO[Any], wait: bool = False) -> bool:
    """Lock an open file; whether that was possible. Closing it unlocks it, and so does the end of the process."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        elif msvcrt is not None:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):  # the latter is Windows's word for it
        return False
    return True


def _kind(path: str | PathLike[str], before: str = "") -> int:
    """The mode of what a path leads to; 0 where there is nothing. OSError for a circle of links or too long a name."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise type(error)(f"{before}{path}: {error.strerror}") from error


def is_special(path: str | PathLike[str]) -> bool:
    """Whether a path leads to what cannot be replaced: a device, a pipe, or a file that a process has opened."""
    kind = _kind(path)
    if kind and not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        return True
    step = os.path.abspath(path)
    for _ in range(40):  # as many links as Linux follows
        if os.path.realpath(os.path.dirname(step)).startswith("/proc/"):
            return True  # /dev/stdout leads there, and from there to the file
        if not os.path.islink(step):
            return False
        step = os.path.join(os.path.dirname(step), os.readlink(step))
    return False


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
