"""Saves that fail for real: a disk that takes no more, a folder that cannot be written to. The old file stays."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit import files
from tests.support import ROOT

pytest.importorskip("safetensors", reason="safetensors is not installed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits and permissions are those of POSIX")

FULL = """
import resource, sys
import numpy as np, nnkit
path = sys.argv[1]
net = nnkit.Network([50, 400, 3], seed=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # bytes that a file may have
for attempt in (lambda: net.save(path),
                lambda: net.fit(np.ones((9, 50)), np.arange(9) % 3, epochs=2, checkpoint=path, progress=False)):
    try:
        attempt()
    except OSError as error:
        print(type(error).__name__, error.errno, net.epochs_trained)
"""


def test_saving_to_a_full_disk(tmp_path: Path) -> None:
    import errno

    path = tmp_path / "net.safetensors"
    nnkit.Network([5, 3], seed=0).save(path)
    content = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FULL, path], capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == [f"OSError {errno.EFBIG} 0", f"OSError {errno.EFBIG} 1"]
    assert path.read_bytes() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.safetensors"]


@contextmanager
def nobody(path: Path) -> Iterator[None]:
    """Whom permissions bind, who comes as far as this path; root may write everywhere."""
    if (before := os.geteuid()) != 0:
        yield
        return
    closed = {folder: folder.stat().st_mode for folder in path.parents if not folder.stat().st_mode & 0o001}
    for folder, mode in closed.items():
        folder.chmod(mode | 0o011)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)
        for folder, mode in closed.items():
            folder.chmod(mode)


def test_a_write_protected_file_is_kept(tmp_path: Path) -> None:
    """As by `open`, though the folder would let it be replaced."""
    net, X, y = nnkit.Network([5, 3], seed=0), np.ones((9, 5)), np.arange(9) % 3
    path, before = tmp_path / "net.safetensors", net.parameters.flat.copy()
    nnkit.Network([5, 3], seed=1).save(path)
    content = path.read_bytes()
    path.chmod(0o444)
    tmp_path.chmod(0o777)
    with nobody(path):
        with pytest.raises(PermissionError):
            path.open("r+b")
        with pytest.raises(PermissionError, match=f"write-protected: '{path}'$"):
            net.save(path)
        with pytest.raises(PermissionError, match=f"^checkpoint: {path} is not writable$"):
            net.fit(X, y, epochs=1, checkpoint=path, progress=False)
        with pytest.raises(PermissionError, match=f"^path: {path} is not writable$"):
            nnkit.callbacks.CSVLogger(path)
    assert path.read_bytes() == content
    np.testing.assert_array_equal(net.parameters.flat, before)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs files of two users")
def test_a_file_of_another_user_in_a_shared_directory_is_refused_first(tmp_path: Path) -> None:
    """There only its owner may replace it, though others may write to it."""
    net, path, own = nnkit.Network([5, 3], seed=0), tmp_path / "net", tmp_path / "own"
    for file in (path, own):
        nnkit.Network([5, 3], seed=1).save(file)
        file.chmod(0o666)
    os.chown(own, 65534, 65534)
    content = path.read_bytes()
    tmp_path.chmod(0o1777)
    with nobody(path):
        path.open("r+b").close()
        with pytest.raises(PermissionError):
            os.replace(own, path)
        with pytest.raises(PermissionError, match=f"^checkpoint: {path} belongs to another user"):
            net.fit(np.ones((9, 5)), np.arange(9) % 3, epochs=1, checkpoint=path, progress=False)
        with pytest.raises(PermissionError, match=f"only the owner of the file may replace it: '{path}'$"):
            net.save(path)
        net.save(own)
    assert path.read_bytes() == content
    assert nnkit.load(own).seed == 0
    net.save(path)  # root may


def test_files_of_the_user_called_like_locks_are_kept(tmp_path: Path) -> None:
    net, names = nnkit.Network([5, 3], seed=0), ["run.lock", ".run.lock"]
    for name in names:
        (tmp_path / name).write_text("notes")
    net.fit(np.ones((9, 5)), np.arange(9) % 3, epochs=1, checkpoint=tmp_path / "run", progress=False)
    assert [(tmp_path / name).read_text() for name in names] == ["notes", "notes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "run"])


def test_pipes_and_directories_are_no_targets(tmp_path: Path) -> None:
    """A pipe that nobody reads would be waited for; one with a reader gets the content."""
    net, pipe = nnkit.Network([5, 3], seed=0), tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="is a pipe that no process reads; expected a file"):
        net.save(pipe)
    with pytest.raises(OSError, match=r"checkpoint: .* is a pipe; expected a file"):
        net.fit(np.ones((9, 5)), np.arange(9) % 3, epochs=1, checkpoint=pipe, progress=False)
    with pytest.raises(IsADirectoryError, match=f"^{tmp_path} is a directory; expected a file$"):
        net.save(tmp_path)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    net.save(pipe)
    net.save(tmp_path / "net")
    assert os.read(reader, 1 << 16) == (tmp_path / "net").read_bytes()
    os.close(reader)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the file is closed with the frame that is interrupted
@pytest.mark.parametrize("exists", [False, True])
def test_an_interrupt_leaves_no_temporary_file(exists: bool, tmp_path: Path) -> None:
    """Before any line of the functions that make one; the file is the old or the new one."""
    path, contents = tmp_path / "file", {b"old", b"new"} if exists else {b"new"}
    before, number, seen, interrupted = sys.gettrace(), 0, 0, True

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal seen
        code = frame.f_code
        if event == "call" and not (code.co_filename == files.__file__ and code.co_name in _OWN):
            return None
        seen += event == "line"
        if event == "line" and seen == number:
            signal.raise_signal(signal.SIGINT)
        return trace

    while interrupted:
        number, seen, interrupted = number + 1, 0, False
        path.unlink(missing_ok=True)
        if exists:
            path.write_bytes(b"old")
        sys.settrace(trace)
        try:
            files.writable(path, "path")
            with files.replacing(path) as file:
                file.write(b"new")
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(before)
        gc.collect()
        assert {p.name for p in tmp_path.iterdir()} <= {"file"}, number
        assert not path.exists() or path.read_bytes() in contents
    assert number > 20
    assert path.read_bytes() == b"new"


_OWN = ("writable", "replacing", "_temporary")


def test_saving_to_a_read_only_directory(tmp_path: Path) -> None:
    path, net = tmp_path / "net.safetensors", nnkit.Network([5, 3], seed=0)
    net.save(path)
    content = path.read_bytes()
    net.fit(np.ones((9, 5)), np.arange(9) % 3, epochs=1, checkpoint=tmp_path / "run.safetensors", progress=False)
    before = net.parameters.flat.copy()
    tmp_path.chmod(0o555)
    try:
        with nobody(tmp_path):
            with pytest.raises(PermissionError):
                net.save(path)
            with pytest.raises(PermissionError, match=r"checkpoint: the directory .* is not writable"):
                net.fit(np.ones((9, 5)), np.arange(9) % 3, epochs=1, checkpoint=tmp_path / "b", progress=False)
            assert nnkit.load(path).width == 5
    finally:
        tmp_path.chmod(0o700)
    assert path.read_bytes() == content
    assert np.array_equal(net.parameters.flat, before)


def test_saving_to_a_directory_that_cannot_be_listed(tmp_path: Path) -> None:
    """It may be written, as a drop box."""
    nets, folder = [nnkit.Network([5, 3], seed=seed) for seed in range(2)], tmp_path / "drop"
    folder.mkdir()
    folder.chmod(0o333)
    try:
        with nobody(folder):
            with pytest.raises(PermissionError):
                os.listdir(folder)
            for net in nets:
                net.save(folder / "net")
    finally:
        folder.chmod(0o700)
    assert [path.name for path in folder.iterdir()] == ["net"]
    assert np.array_equal(nnkit.load(folder / "net").parameters.flat, nets[1].parameters.flat)


def in_namespace(folder: Path, options: str, script: str) -> str:
    """What a shell prints in a folder as root of a user namespace, as containers have; skips without them."""
    try:
        subprocess.run(["unshare", *options.split(), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no user namespaces: {error}")
    command = ["unshare", *options.split(), "sh", "-ec", script.replace("python", sys.executable)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=True
    ).stdout


SAVE = "python -c 'import nnkit; nnkit.Network([5, 3], seed=1).save(\"net\")'"


def test_a_file_whose_group_has_no_number_in_a_container_is_replaced(tmp_path: Path) -> None:
    net, path = nnkit.Network([5, 3], seed=0), tmp_path / "net"
    net.save(path)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 0, 1234)
    elif len(os.getgroups()) < 2:
        pytest.skip("needs a second group")
    else:
        os.chown(path, -1, next(group for group in os.getgroups() if group != os.getegid()))
    in_namespace(tmp_path, "-r", SAVE)
    assert nnkit.load(path).seed == 1
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_is_mounted_on_its_own_is_written_to(tmp_path: Path) -> None:
    """As by `docker run -v $PWD/net:/data/net`; it cannot be renamed over. The old content is longer."""
    (tmp_path / "net").touch()
    (tmp_path / "mounted").write_bytes(b"old" * 10_000)
    script = f"mount --bind mounted net; touch new; mv new net 2> /dev/null && exit 9; rm new; {SAVE}; ls -A"
    assert in_namespace(tmp_path, "-rm", script).split() == ["mounted", "net"]
    nnkit.Network([5, 3], seed=1).save(tmp_path / "same")
    assert (tmp_path / "mounted").read_bytes() == (tmp_path / "same").read_bytes()
    assert (tmp_path / "net").read_bytes() == b""  # outside it is another file
