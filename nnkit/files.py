"""Atomic replacement of files, and file locks."""

import errno
import hashlib
import io
import os
import re
import shutil
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import IO, Any

from nnkit.backends.loading import undisturbed

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None  # type: ignore[assignment]

# Longest name, in bytes, that temporary names contain unabridged. File systems allow 255 bytes, some 143.
_LONG = 100


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for writing that replaces `path` if the block succeeds.

    A temporary file next to `path` is written, flushed to the disk and renamed; if the block or the disk fails, `path`
    is unchanged and the temporary file removed. The new file has the mode of the old one. Leftovers of killed processes
    are removed. The target of a symbolic link is replaced, not the link; other hard links keep the old file. A file
    mounted on its own, as in containers, and other than regular files, such as a pipe or /dev/stdout, cannot be
    replaced: the content is written to them if the block succeeds. Raises OSError if the file cannot be written,
    PermissionError if it is write-protected or another user's in a directory such as /tmp, where only the owner may
    replace it.
    """
    path = _path(path, "path")
    if is_special(path):
        content = io.BytesIO()
        yield content
        with _naming(path), open(_opened(path), "wb") as special:
            special.write(content.getbuffer())
        return
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; expected a file")
    if path.exists() and not _may_write(path):
        raise PermissionError(errno.EACCES, "the file is write-protected", os.fspath(path))
    if path.exists() and _is_anothers(path):
        raise PermissionError(errno.EPERM, "only the owner of the file may replace it", os.fspath(path))
    target, names = os.path.realpath(path), [""]
    _remove_leftovers(target)
    try:
        with _naming(path), _temporary(target, names) as file:
            temporary = names[-1]
            yield file
            file.flush()
            _take_after(target, file)
            os.fsync(file.fileno())
            if fcntl is not None:  # while it is locked; otherwise it could be removed as a leftover
                _replace(temporary, target)
        if fcntl is None:  # Windows cannot rename open files
            _replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(names[-1])
        raise
    _flush_folder(os.path.dirname(target))


@contextmanager
def _naming(path: str | PathLike[str]) -> Iterator[None]:
    """Add the file's name to system errors during writing, such as a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # from NumPy, for an incompletely written array
            error.add_note(os.fspath(path))
        elif error.filename is None:
            error.filename = os.fspath(path)
        raise


def writable(path: str | PathLike[str], name: str) -> Path:
    """Return the path if a file can be written there; otherwise raise TypeError or OSError that calls it `name`."""
    path = _path(path, name)
    kind = _kind(path, f"{name}: ")
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(f"{name}: {path} is a directory; expected a file")
    if stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
        raise OSError(f"{name}: {path} is a {'disk' if stat.S_ISBLK(kind) else 'socket'}; expected a file")
    if kind and not _may_write(path):
        raise PermissionError(f"{name}: {path} is not writable")
    if is_special(path):
        return path
    if kind and _is_anothers(path):
        raise PermissionError(f"{name}: {path} belongs to another user, who alone may replace it in its directory")
    folder = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: the directory {folder} does not exist")
    names = [""]
    try:  # permissions do not tell all: a read-only disk, /proc and /sys have some, too
        with undisturbed():
            _temporary(os.path.realpath(path), names).close()
            with suppress(FileNotFoundError):  # another process may have removed it as a leftover
                os.unlink(names[-1])
    except OSError as error:
        raise type(error)(f"{name}: the directory {folder} is not writable: {error.strerror}") from None
    return path


def existing_file(path: str | PathLike[str], name: str = "path") -> Path:
    """Return the path of a readable file; otherwise raise TypeError, which calls it `name`, or OSError."""
    path = _path(path, name)
    kind = _kind(path)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(f"{path} is a directory; expected a file")
    if not kind:
        raise FileNotFoundError(f"{path}: no such file")
    if not stat.S_ISREG(kind):
        raise OSError(f"{path} is a device or a pipe; expected a file")
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(f"{path} is not readable")
    return path


def _path(path: str | PathLike[str], name: str) -> Path:
    if not isinstance(path, str | PathLike):
        raise TypeError(f"{name} is {path!r}; expected the path of a file")
    if os.fspath(path).endswith((os.sep, os.altsep or os.sep)):  # which Path leaves out
        raise IsADirectoryError(f"{name}: {path} is a directory; expected a file")
    return Path(path)


@contextmanager
def locked(path: str | PathLike[str]) -> Iterator[None]:
    """Hold an exclusive lock on a file for the block; raises BlockingIOError if it is already locked.

    The lock is a temporary, hidden file next to `path`, with the suffix .lock; it also ends with the process. All paths
    to one file share its lock; other than regular files have none.
    """
    if is_special(path):
        yield
        return
    target = os.path.realpath(path)
    beside = _beside(target, ".", ".lock")
    file = _locked_file(beside)
    _held.add(file)
    try:
        yield
    finally:
        _held.discard(file)
        if fcntl is not None and not file.closed:  # before unlocking: see _locked_file
            _remove_lock(beside)
        file.close()
        if fcntl is None:
            _remove_lock(beside)


def _remove_lock(name: str) -> None:
    """Remove a lock file, but not a file of a user's with this name, which is not empty."""
    with suppress(OSError):  # it may be gone; Windows cannot remove files opened by other processes
        if os.path.getsize(name) == 0:
            os.unlink(name)


_held: set[IO[bytes]] = set()  # files locked by this process


def _forked() -> None:
    """Close inherited lock files in a child process: a lock belongs to the process that acquired it."""
    while _held:
        _held.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _remove_leftovers(target: str) -> None:
    """Remove temporary files for a target left by killed processes, in a folder that may be listed."""
    name, found = re.compile(re.escape(os.path.basename(_beside(target, ".", "."))) + r"[0-9a-f]{12}\.part"), []
    with suppress(PermissionError), os.scandir(os.path.dirname(target)) as entries:
        found = [entry.path for entry in entries if name.fullmatch(entry.name)]
    for leftover in found:
        with suppress(OSError):
            if fcntl is None:  # on Windows, the file is not locked between closing and renaming
                if os.path.getmtime(leftover) < time.time() - 3600:
                    os.unlink(leftover)
                continue
            with open(leftover, "r+b") as file:
                if _lock(file):
                    os.unlink(leftover)


def _temporary(target: str, names: list[str]) -> IO[bytes]:
    """Create a uniquely named file next to the target: renames are atomic only within a file system.

    Its name is appended to `names` before it exists, so that it can be removed if this is interrupted.
    """
    mode = 0o600 if os.path.exists(target) else 0o666  # private until it gets the target's mode
    while True:
        names.append(temporary := _beside(target, ".", f".{os.urandom(6).hex()}.part"))
        file = open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        # Locked while it is written, so that it is not removed as a leftover; it may have been, just before.
        with suppress(OSError):
            _lock(file, wait=True)
        if os.path.exists(temporary):
            return file
        file.close()


def _opened(path: Path) -> int:
    """Open a device or a pipe for writing; a pipe that no process reads within two seconds is an error."""
    flags = os.O_WRONLY | os.O_APPEND
    if not stat.S_ISFIFO(_kind(path)):
        return os.open(path, flags)
    end = time.monotonic() + 2
    while True:
        try:
            descriptor = os.open(path, flags | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > end:
                raise OSError(f"{path} is a pipe that no process reads; expected a file") from None
            time.sleep(0.01)
        else:
            os.set_blocking(descriptor, True)
            return descriptor


def _replace(temporary: str, target: str) -> None:
    """Rename a temporary file, or, where the target is a mount point and cannot be replaced, copy its content."""
    try:
        os.replace(temporary, target)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        with open(temporary, "rb") as source, open(target, "r+b") as file:
            shutil.copyfileobj(source, file)
            file.truncate()  # of a longer old content
            file.flush()
            os.fsync(file.fileno())
        os.unlink(temporary)


def _beside(target: str, before: str, after: str) -> str:
    """A path next to the target, derived from its name, or from a digest of a long name."""
    folder, name = os.path.split(target)
    encoded = os.fsencode(name)
    if len(encoded) > _LONG:
        name = hashlib.sha256(encoded).hexdigest()[:32]
    return os.path.join(folder, f"{before}{name}{after}")


def _take_after(target: str, file: IO[bytes]) -> None:
    """Copy the target's mode and owner to the file that will replace it, as far as the system permits."""
    if not hasattr(os, "fchmod"):
        return
    try:
        old = os.stat(target)
    except FileNotFoundError:
        return
    with suppress(OSError):  # containers have owners without a number in them, some disks no owners
        os.fchown(file.fileno(), old.st_uid, old.st_gid)
    with suppress(OSError):  # nor modes
        os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))


def _flush_folder(folder: str) -> None:
    """Flush a directory to the disk, if the system can open directories."""
    if hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):  # some file systems cannot; the file itself is already on the disk
            descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _locked_file(name: str) -> IO[bytes]:
    """Open and lock a file; raises BlockingIOError if another process has locked it."""
    while True:
        file = open(name, "ab")  # noqa: SIM115
        try:
            if not _lock(file):
                raise BlockingIOError(name)
            # The previous owner may have removed it after it was opened here: then the name is free or another file's.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(name), os.fstat(file.fileno())):
                    return file
        except BlockingIOError:
            file.close()
            raise
        except OSError as error:
            warnings.warn(f"{name} cannot be locked ({error}): no other process may write this file", stacklevel=5)
            return file
        file.close()


def _lock(file: IO[Any], wait: bool = False) -> bool:
    """Lock an open file, if possible; returns whether it is locked. Closing it or the end of the process unlocks it."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        elif msvcrt is not None:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):  # the latter on Windows
        return False
    return True


def _kind(path: str | PathLike[str], before: str = "") -> int:
    """The mode of the file at a path, or 0 if none exists. Raises OSError for circular links or too long a name."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise type(error)(f"{before}{path}: {error.strerror}") from error


def is_special(path: str | PathLike[str]) -> bool:
    """Whether a path leads to something that cannot be replaced: a device, a pipe, or a process's open file."""
    kind = _kind(path)
    if kind and not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        return True
    step = os.path.abspath(path)
    for _ in range(40):  # links, as many as Linux follows
        if os.path.realpath(os.path.dirname(step)).startswith("/proc/"):
            return True  # /dev/stdout is a link into /proc
        if not os.path.islink(step):
            return False
        step = os.path.join(os.path.dirname(step), os.readlink(step))
    return False


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _is_anothers(path: Path) -> bool:
    """Whether only another user may replace an existing file: in a directory with the sticky bit, such as /tmp."""
    if not hasattr(os, "geteuid"):
        return False
    target = os.path.realpath(path)
    file, folder = os.stat(target), os.stat(os.path.dirname(target))
    return bool(folder.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, file.st_uid, folder.st_uid)
