"""mnist(download=True) from a server on this machine, which may lack files, hold wrong ones or hang up."""

import gzip
import hashlib
import importlib
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnkit.cli import main
from nnkit.data import MNIST, mnist

mnist_module = importlib.import_module("nnkit.data.mnist")  # the package's attribute of this name is the function

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SHAPES = ((6, 2, 3), (6,), (4, 2, 3), (4,))
ARRAYS = {
    name: np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)
    for i, (name, shape) in enumerate(zip(NAMES, SHAPES, strict=True))
}


def idx(array: Any) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + bytes(array.tobytes())


ORIGINALS = {name: idx(array) for name, array in ARRAYS.items()}
GOOD = {f"{name}.gz": gzip.compress(content) for name, content in ORIGINALS.items()}
WRONG = gzip.compress(idx(ARRAYS[NAMES[0]] ^ 1))


class Server:
    """Two mirrors, `good` and `first`, that answer with the files in these dictionaries and count what is asked for.

    Of the files in `cut`, half is sent.
    """

    def __init__(self) -> None:
        self.files = {"first": dict(GOOD), "good": dict(GOOD)}
        self.cut: set[str] = set()
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror, name = self.path.strip("/").split("/")
                server.asked.append(f"{mirror}/{name}")
                content = server.files[mirror].get(name)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if f"{mirror}/{name}" in server.cut else content)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.mirrors = tuple(f"http://127.0.0.1:{self.http.server_port}/{mirror}/" for mirror in ("first", "good"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip("pooch", reason="pooch is not installed")
    made = Server()
    originals = [
        mnist_module._Original(name, ARRAYS[name].shape, hashlib.sha256(ORIGINALS[name]).hexdigest()) for name in NAMES
    ]
    monkeypatch.setattr(mnist_module, "_ORIGINALS", tuple(originals))
    monkeypatch.setattr(mnist_module, "MIRRORS", made.mirrors)
    monkeypatch.delenv("NNKIT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    thread = threading.Thread(target=made.http.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


def assert_is_mnist(data: MNIST) -> None:
    arrays: Any = data
    for array, name in zip(arrays, NAMES, strict=True):
        assert np.array_equal(array, ARRAYS[name].reshape(len(ARRAYS[name]), -1).squeeze())


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_downloading_into_a_new_directory(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with pytest.raises(FileNotFoundError, match=r"mnist\(download=True\) downloads it"):
        mnist(folder)
    assert_is_mnist(mnist(folder, download=True))
    assert files(folder) == sorted(GOOD)
    assert server.asked == [f"first/{name}" for name in GOOD]
    assert_is_mnist(mnist(folder, download=True))  # all there
    assert_is_mnist(mnist(folder))
    assert len(server.asked) == 4
    assert not (tmp_path / "cache").exists()


def test_downloading_into_the_cache(server: Server, tmp_path: Path) -> None:
    assert_is_mnist(mnist(download=True))
    assert files(tmp_path / "cache" / "nnkit" / "mnist") == sorted(GOOD)
    assert_is_mnist(mnist())
    assert len(server.asked) == 4


def test_only_missing_files_are_downloaded(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into NNKIT_DATA; the other files are in its folder mnist and in the cache, and one is not gzipped."""
    data, cache = tmp_path / "data", tmp_path / "cache" / "nnkit" / "mnist"
    (data / "mnist").mkdir(parents=True)
    cache.mkdir(parents=True)
    (data / "mnist" / NAMES[0]).write_bytes(ORIGINALS[NAMES[0]])
    (cache / f"{NAMES[1]}.gz").write_bytes(GOOD[f"{NAMES[1]}.gz"])
    monkeypatch.setenv("NNKIT_DATA", str(data))
    assert_is_mnist(mnist(download=True))
    assert server.asked == [f"first/{name}.gz" for name in NAMES[2:]]
    assert files(data) == ["mnist", *sorted(f"{name}.gz" for name in NAMES[2:])]


@pytest.mark.parametrize("watched", [None, False, True])
def test_a_bar_is_shown_on_a_terminal(server: Server, tmp_path: Path, watched: bool | None) -> None:
    """None as in a service, which has no standard error."""
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    seen = io.StringIO()
    seen.isatty = lambda: bool(watched)  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", None if watched is None else seen)
        assert_is_mnist(mnist(tmp_path, download=True))
    assert ("%" in seen.getvalue()) is bool(watched)


@pytest.mark.parametrize("trouble", ["missing", "wrong", "cut", "no gzip", "a web page"])
def test_the_second_mirror_is_tried(server: Server, tmp_path: Path, trouble: str) -> None:
    name = f"{NAMES[0]}.gz"
    if trouble == "missing":
        del server.files["first"][name]
    elif trouble == "cut":
        server.cut.add(f"first/{name}")
    else:
        contents = {"wrong": WRONG, "no gzip": GOOD[name][:-9], "a web page": b"<html>"}
        server.files["first"][name] = contents[trouble]
    assert_is_mnist(mnist(tmp_path, download=True))
    assert server.asked[:2] == [f"first/{name}", f"good/{name}"]
    assert files(tmp_path) == sorted(GOOD)


def test_all_mirrors_fail(server: Server, tmp_path: Path) -> None:
    name = f"{NAMES[1]}.gz"
    server.files["first"][name] = WRONG
    server.cut.add(f"good/{name}")
    with pytest.raises(ConnectionError) as caught:
        mnist(tmp_path, download=True)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{name} could not be downloaded to {tmp_path}:"
    assert lines[1].startswith(f"  {server.mirrors[0]}{name}: holds an array of shape (6, 2, 3); expected (6,)")
    assert lines[2].startswith(f"  {server.mirrors[1]}{name}: ")
    assert len(lines) == 3
    # What came before is kept, and of the wrong files nothing is left.
    assert files(tmp_path) == [f"{NAMES[0]}.gz"]
    server.cut.clear()
    assert_is_mnist(mnist(tmp_path, download=True))
    assert server.asked.count(f"first/{NAMES[0]}.gz") == 1


def test_no_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist_module, "MIRRORS", ("http://127.0.0.1:9/",))
    with pytest.raises(
        ConnectionError, match=r"could not be downloaded(.|\n)*http://127.0.0.1:9/train-images-idx3-ubyte.gz"
    ):
        mnist(tmp_path, download=True)
    assert files(tmp_path) == []


def test_each_mirror_has_one_short_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pooch", reason="pooch is not installed")
    monkeypatch.setattr(mnist_module, "MIRRORS", ("http://127.0.0.1:9/", "https://127.0.0.1:9/"))
    url, reason = f"127.0.0.1:9/{NAMES[0]}.gz", "Connection refused"
    message = f"{NAMES[0]}.gz could not be downloaded to {tmp_path}:"
    reasons = [f"http://{url}: {reason};", f"https://{url}: {reason}"]
    try:
        raise FileNotFoundError("of another error, the message is not the reason")
    except FileNotFoundError:
        with pytest.raises(ConnectionError) as caught:
            mnist(tmp_path, download=True)
    assert str(caught.value) == "\n  ".join([message, *reasons])
    command = ["train", "--data", "mnist", "--data-dir", str(tmp_path), "--download", "--no-model", "--no-picture"]
    assert main(command) == 2
    expected = " ".join([message, *reasons]) + "; or give --data-dir FOLDER with the four files"
    assert capsys.readouterr().err == f"nnkit: error: {expected}\n"


def test_an_existing_wrong_file_is_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(WRONG)
    with pytest.raises(ValueError, match=f"{NAMES[0]}.gz: not the original {NAMES[0]}"):
        mnist(tmp_path, download=True)
    assert (tmp_path / f"{NAMES[0]}.gz").read_bytes() == WRONG
    assert f"first/{NAMES[0]}.gz" not in server.asked


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_an_invalid_directory_is_refused_before_downloading(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        mnist(tmp_path / "file" / "folder", download=True)
    assert server.asked == []


def test_without_pooch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"needs pooch: python -m pip install pooch$"):
        mnist(tmp_path / "new", download=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("chosen", [None, "", "relative", "/somewhere/cache"])
def test_the_cache_is_that_of_pooch(chosen: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    pooch = pytest.importorskip("pooch", reason="pooch is not installed")
    if chosen is None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", chosen)
    assert mnist_module.cache_folder() == Path(pooch.os_cache("nnkit"))


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/nnkit/nnkit/Cache"),
        ("darwin", {"HOME": "/Users/me", "XDG_CACHE_HOME": ""}, "/Users/me/Library/Caches/nnkit"),
        ("linux", {"HOME": "/home/me", "XDG_CACHE_HOME": ""}, "/home/me/.cache/nnkit"),
    ],
)
def test_the_cache_on_each_system(
    platform: str, environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert mnist_module.cache_folder() == Path(folder)


def test_the_data_package_does_not_import_pooch() -> None:
    script = "import sys, nnkit.data; print([m for m in ('pooch', 'requests') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_silent_server_times_out(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    asked: list[float] = []
    real = pooch.HTTPDownloader

    def downloader(**options: Any) -> Any:
        asked.append(options["timeout"])
        return real(**options)

    monkeypatch.setattr(pooch, "HTTPDownloader", downloader)
    mnist(tmp_path / "new", download=True)
    assert set(asked) == {30}
