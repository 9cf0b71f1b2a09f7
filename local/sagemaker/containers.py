"""The containers of endpoints: model servers that load archives from S3, answer requests, and are evicted."""

import json
import os
import shutil
import signal
import socket
import tarfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from local.sagemaker.jobs import JobFailed, fetch, unpack

LOAD_SECONDS_MAX = 60
_NUMBERS = count(1)


class LoadFailed(Exception):
    """A model that could not be loaded; the message is what its server printed last."""


class DataMissing(Exception):
    """Model data that could not be downloaded."""


class Died(Exception):
    """The model's server died while it answered, as one that has no memory left does."""


class TimedOut(Exception):
    """The model's server did not answer in time."""


class Response(NamedTuple):
    """What a container answers."""

    status: int
    content_type: str
    body: bytes


@dataclass
class Image:
    """What starts processes with the image's libraries."""

    home: Path
    socket_path: Path


class ModelServer:
    """A process with one loaded model; requests are answered one after the other."""

    def __init__(self, image: Image, folder: Path, environment: Mapping[str, str]) -> None:
        """Load the model in a folder; raises LoadFailed."""
        self._folder, self._lock = folder, threading.Lock()
        self._path = image.home / f"m{next(_NUMBERS)}"  # a short name: addresses of sockets have 108 bytes at most
        self._log = folder.with_suffix(".log")
        order = {
            "script": str(Path(__file__).with_name("worker.py")),
            "arguments": [str(folder), str(self._path)],
            "environment": {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **environment},
            "directory": str(folder),
            "log": str(self._log),
        }
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(image.socket_path))
        self._connection.sendall(json.dumps(order).encode() + b"\n")
        with self._connection.makefile("rb") as stream:
            self._pid = int(json.loads(stream.readline())["pid"])
        self._connection.setblocking(False)
        limit = time.monotonic() + LOAD_SECONDS_MAX
        while not self._path.exists():
            if self._ended() or time.monotonic() > limit:
                printed = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                self.stop()
                raise LoadFailed(printed[-1] if printed else "the model server printed nothing")
            time.sleep(0.005)

    @property
    def pid(self) -> int:
        return self._pid

    def invoke(self, body: bytes, content_type: str, accept: str, seconds: float) -> Response:
        """Return what the model's code answers; raises Died or TimedOut."""
        limit = time.monotonic() + seconds
        if not self._lock.acquire(timeout=seconds):
            raise TimedOut
        try:
            return self._invoke(body, content_type, accept, max(limit - time.monotonic(), 0.001))
        finally:
            self._lock.release()

    def _invoke(self, body: bytes, content_type: str, accept: str, seconds: float) -> Response:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            try:
                connection.connect(str(self._path))
                request = {"content_type": content_type, "accept": accept, "bytes": len(body)}
                connection.sendall(json.dumps(request).encode() + b"\n" + body)
                with connection.makefile("rb") as stream:
                    head = stream.readline()
                    if not head:
                        raise Died
                    answer = json.loads(head)
                    return Response(answer["status"], answer["content_type"], stream.read(answer["bytes"]))
            except TimeoutError:
                raise TimedOut from None
            except (ConnectionError, FileNotFoundError):
                raise Died from None

    def kill(self) -> None:
        """End the process as the kernel does when there is no memory left."""
        if not self._ended():
            os.killpg(self._pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the process after the request that it answers, and remove what it had on disk."""
        with self._lock:
            self.kill()
            self._connection.close()
            self._path.unlink(missing_ok=True)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._log.unlink(missing_ok=True)

    def _ended(self) -> bool:
        try:
            received = self._connection.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return not received or b"exit" in received


@dataclass
class Container:
    """A container of an endpoint: serves one model, or those below a prefix as they are asked for.

    `s3` returns a client with the rights of the model's role.
    """

    image: Image
    request: Mapping[str, Any]
    """Its definition: Image, ModelDataUrl, Mode, Environment, ContainerHostname."""
    s3: Callable[[], Any]
    loaded_max: int = 1
    loads: int = 0
    _loaded: "OrderedDict[str, ModelServer]" = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _used: Counter[int] = field(default_factory=Counter)
    """The process of a server → requests that it is to answer; one that is evicted answers them first."""
    _retired: dict[int, ModelServer] = field(default_factory=dict)
    _stopped: bool = False
    _loading: dict[str, threading.Lock] = field(default_factory=dict)

    @property
    def is_multi_model(self) -> bool:
        return self.request.get("Mode") == "MultiModel"

    @property
    def loaded(self) -> list[str]:
        with self._lock:
            return list(self._loaded)

    def start(self) -> None:
        """Load the model of a container that has one; raises LoadFailed or DataMissing."""
        if not self.is_multi_model and "ModelDataUrl" in self.request:
            with self.server(""):
                pass

    @contextmanager
    def server(self, target: str) -> Iterator[ModelServer]:
        """Give the server of a model, loading it first if it is not; raises LoadFailed or DataMissing.

        It is not stopped while it is used. One that died is dropped: the next request loads the model again.
        """
        server = self._taken(target) or self._loaded_now(target)
        try:
            yield server
        except Died:
            with self._lock:
                if self._loaded.get(target) is server:
                    self._retire(self._loaded.pop(target))
            raise
        finally:
            with self._lock:
                self._used[server.pid] -= 1
                done = self._retired.pop(server.pid, None) if not self._used[server.pid] else None
            if done is not None:
                done.stop()

    def stop(self) -> None:
        """Stop all servers, those that are being used after that."""
        with self._lock:
            self._stopped = True
            idle = [self._retire(self._loaded.popitem()[1]) for _ in range(len(self._loaded))]
        for server in idle:
            if server is not None:
                server.stop()

    def _taken(self, target: str) -> ModelServer | None:
        with self._lock:
            server = self._loaded.get(target)
            if server is not None:
                self._loaded.move_to_end(target)
                self._used[server.pid] += 1
            return server

    def _loaded_now(self, target: str) -> ModelServer:
        with self._lock:
            loading = self._loading.setdefault(target, threading.Lock())
        with loading:
            server = self._taken(target)
            if server is not None:
                return server
            server = ModelServer(self.image, self._extracted(target), self.request.get("Environment", {}))
            idle: list[ModelServer | None] = []
            with self._lock:
                self.loads += 1
                self._used[server.pid] += 1
                if self._stopped:
                    self._retire(server)
                else:
                    self._loaded[target] = server
                while len(self._loaded) > self.loaded_max:
                    idle.append(self._retire(self._loaded.popitem(last=False)[1]))
            for old in idle:
                if old is not None:
                    old.stop()
        return server

    def _retire(self, server: ModelServer) -> ModelServer | None:
        """Return a server that can be stopped at once; one that is used is stopped after that."""
        if not self._used[server.pid]:
            return server
        self._retired[server.pid] = server
        return None

    def _extracted(self, target: str) -> Path:
        folder = self.image.home / "models" / str(next(_NUMBERS))
        archive = folder.with_suffix(".tar.gz")
        uri = self.request["ModelDataUrl"]
        if self.is_multi_model:
            uri = f"{uri.rstrip('/')}/{target}"
        try:
            fetch(self.s3(), uri, archive)
            with tarfile.open(archive) as members:
                unpack(members, folder)
        except JobFailed as error:
            raise DataMissing(str(error)) from error
        except (tarfile.TarError, EOFError, OSError) as error:
            raise LoadFailed(f"the model data is no archive: {error}") from error
        finally:
            archive.unlink(missing_ok=True)
        return folder
