"""Files that are replaced: their mode, links to them, what is not a regular file, long names, leftovers and locks."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.cli import main
from nnkit.files import locked, replacing, writable

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes, links and devices are those of POSIX")


def write(path: Path | str, content: bytes = b"new") -> None:
    with replacing(path) as file:
        file.write(content)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def null(folder: Path) -> Path:
    """A device like /dev/null that may be lost."""
    path = folder / "null.png"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")
    try:
        path.write_bytes(b"x")
    except PermissionError:
        pytest.skip("devices do not work in this folder")
    return path


@pytest.mark.parametrize("before", [0o600, 0o644, 0o755])
def test_a_file_keeps_its_mode(tmp_path: Path, before: int) -> None:
    path = tmp_path / "net"
    path.write_bytes(b"old")
    path.chmod(before)
    write(path)
    assert (path.read_bytes(), mode(path)) == (b"new", before)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_follows_the_mask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write(tmp_path / "net")
    finally:
        os.umask(before)
    assert mode(tmp_path / "net") == 0o666 & ~mask


def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.write_bytes(b"old")
    path.chmod(0o600)
    with replacing(path):
        assert [mode(p) for p in tmp_path.iterdir()] == [0o600, 0o600]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "net"
    if exists:
        target.write_bytes(b"old")
    (tmp_path / "link").symlink_to("folder/net")
    (tmp_path / "second").symlink_to(tmp_path / "link")
    write(tmp_path / "second")
    assert (tmp_path / "second").is_symlink()
    assert (tmp_path / "link").is_symlink()
    assert target.read_bytes() == b"new"
    with pytest.raises(ValueError, match="stop"), replacing(tmp_path / "link"):
        raise ValueError("stop")
    assert target.read_bytes() == b"new"
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["net"]


def test_a_device_is_written_into(tmp_path: Path) -> None:
    path = null(tmp_path)
    write(path)
    nnkit.Network([2, 2], seed=0).save(path)
    net = nnkit.Network([2, 2], seed=0)
    net.fit([[0.0, 1.0]], [1], epochs=2, checkpoint=path, progress=False)
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    nnkit.History.of({"cost": [1.0, 0.5]}).plot(path)
    command = ["train", "--epochs", "1", "--quiet", "--picture", str(path)]
    assert main([*command, *(f"--{name}={path}" for name in ("model", "history", "checkpoint"))]) == 0
    assert stat.S_ISCHR(path.stat().st_mode)
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
    reader.start()
    nnkit.Network([2, 2], seed=5).save(path)
    reader.join()
    (tmp_path / "net").write_bytes(read[0])
    assert nnkit.load(tmp_path / "net").seed == 5
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /dev/stdout")
@pytest.mark.parametrize("where", ["/dev/stdout", "/proc/self/fd/1", "link"])
def test_standard_output_is_written_into(tmp_path: Path, where: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    script = f"from nnkit.files import *\nprint('first', flush=True)\nwith replacing({where!r}) as f: f.write(b'then')"
    with open(tmp_path / "out", "wb") as out:
        subprocess.run([sys.executable, "-c", script], stdout=out, check=True, cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == b"first\nthen"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout == b"first\nthen"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "out"]


def test_unwritable_paths_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "astray").symlink_to("nowhere/net")
    for name, error, message in (
        (".", IsADirectoryError, "--model: .* is a directory; expected a file"),
        ("nowhere/net", FileNotFoundError, "--model: the directory .*nowhere does not exist"),
        ("astray", FileNotFoundError, "--model: the directory .*nowhere does not exist"),
        ("file/net", FileNotFoundError, "--model: the directory .*file does not exist"),
        ("circle", OSError, "symbolic links"),
        ("n" * 256, OSError, "too long"),
    ):
        with pytest.raises(error, match=message):
            writable(tmp_path / name, "--model")
    disk = tmp_path / "disk"
    try:
        os.mknod(disk, 0o600 | stat.S_IFBLK, os.makedev(7, 250))
    except PermissionError:
        return
    with pytest.raises(OSError, match="is a disk; expected a file"):
        writable(disk, "--model")


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "n" * 240, "n" * 101, "n" * 100, ".net", "a b\nc"])
def test_names_up_to_the_limit(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for content in (b"old", b"new"):
        write(path, content)
        with locked(path):
            assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_name_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"net-\xff\xfe")
    write(path)
    with locked(path):
        pass
    assert os.listdir(os.fsencode(tmp_path)) == [b"net-\xff\xfe"]


KILLED = """
import os, signal, sys
from nnkit.files import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_path_that_ends_like_a_folder_is_none_of_a_file(tmp_path: Path) -> None:
    net = nnkit.Network([3, 2], seed=0)
    for call in (net.save, nnkit.load, lambda path: net.fit(np.ones((4, 3)), [0, 1, 0, 1], checkpoint=path)):
        with pytest.raises(IsADirectoryError, match=r"net/ is a directory; expected a file"):
            call(f"{tmp_path}/net/")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["net", "n" * 255])
def test_leftovers_of_killed_processes_are_removed(tmp_path: Path, name: str) -> None:
    others = [".net.part", ".net.123.part", f".net2.{'0' * 12}.part", f"net.{'0' * 12}.part", f".net.{'0' * 12}.par"]
    for other in others:
        (tmp_path / other).touch()
    path = tmp_path / name
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    left = {p.name for p in tmp_path.iterdir()} - set(others)
    assert len(left) == 1  # the second one has removed what the first one left
    assert left.pop().endswith(".part")
    write(path)
    assert {p.name for p in tmp_path.iterdir()} == {name, *others}


def test_files_being_written_are_not_leftovers(tmp_path: Path) -> None:
    with replacing(tmp_path / "net") as outer:
        write(tmp_path / "net", b"inner")
        outer.write(b"outer")
    assert (tmp_path / "net").read_bytes() == b"outer"
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_many_processes_write_one_file(tmp_path: Path) -> None:
    """Some remove leftovers while others begin: none loses what it writes, and nothing is left."""
    errors: list[BaseException] = []

    def work(content: bytes) -> None:
        try:
            for _ in range(60):
                write(tmp_path / "net", content)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(bytes([65 + i]) * 1000,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [p.name for p in tmp_path.iterdir()] == ["net"]
    assert len(set((tmp_path / "net").read_bytes())) == 1


def test_the_folder_is_flushed_after_the_new_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        kind = os.fstat(descriptor)
        done.append("folder" if stat.S_ISDIR(kind.st_mode) else f"file of {kind.st_size}")
        fsync(descriptor)

    def replaced(source: Any, target: Any) -> None:
        done.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", replaced)
    write(tmp_path / "net", b"twelve bytes")
    assert done == ["file of 12", "name", "folder"]


def test_all_paths_to_a_file_share_one_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/net")
    (tmp_path / "short").symlink_to("folder")
    monkeypatch.chdir(tmp_path / "folder")
    names: list[Path | str] = [
        tmp_path / "folder" / "net",
        tmp_path / "link",
        tmp_path / "short" / "net",
        "net",
        "../folder/./net",
    ]
    for first in names:
        for second in names:
            with locked(first), pytest.raises(BlockingIOError), locked(second):
                pass
    with locked(names[0]), locked(tmp_path / "other"):
        pass
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "link", "short"]


HOLDER = """
import os, sys, time
from nnkit.files import locked
path, log = sys.argv[1:]
held = 0
end = time.monotonic() + 1.5
while time.monotonic() < end:
    try:
        with locked(path):
            # Whoever finds another's mark here has not been alone.
            open(log, "xb").close()
            os.unlink(log)
            held += 1
    except BlockingIOError:
        pass
print(held)
"""


def test_a_lock_file_that_is_removed_still_excludes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "net"), str(tmp_path / "mark")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    done = [process.communicate(timeout=60) for process in running]
    assert [error for _, error in done] == [""] * 4
    assert sum(int(out) for out, _ in done) > 100
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    script = "import os, signal, sys\nfrom nnkit.files import locked\nwith locked(sys.argv[1]): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, tmp_path / "net"], check=False)
    assert [p.name for p in tmp_path.iterdir()] == [".net.lock"]
    with locked(tmp_path / "net"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is not on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_an_exiting_child_keeps_the_lock_of_its_parent(tmp_path: Path) -> None:
    lock = locked(tmp_path / "net")
    with lock:
        child = os.fork()
        if child == 0:
            try:
                lock.__exit__(None, None, None)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert [p.name for p in tmp_path.iterdir()] == [".net.lock"]
        with pytest.raises(BlockingIOError), locked(tmp_path / "net"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_trainings_through_a_link_share_a_lock(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    (tmp_path / "link").symlink_to("run.safetensors")
    X, y = np.ones((4, 3)), np.arange(4) % 2
    net = nnkit.Network([3, 2], seed=0)
    with locked(tmp_path / "run.safetensors"), pytest.raises(BlockingIOError, match="another process is training to"):
        net.fit(X, y, checkpoint=tmp_path / "link", progress=False)
    net.fit(X, y, epochs=2, checkpoint=tmp_path / "link", progress=False)
    assert (tmp_path / "link").is_symlink()
    assert nnkit.load(tmp_path / "run.safetensors").epochs_trained == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "run.safetensors"]
