"""Starts and stops the processes of a server: some that read, and one that writes."""

import ipaddress
import os
import socket
import stat
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.supervisors import Multiprocess

from msgm.errors import UserError
from msgm.plugins import trusted
from msgm.reading import read_bytes
from msgm.recommender.service import Service
from msgm.recommender.serving import writer
from msgm.recommender.serving.scratch import scratch
from msgm.recommender.serving.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

SHORTEST = 16
"""Characters of a token at least."""
SOCKET_PATH = 103
"""Bytes of a socket's path at most: 107 on Linux, 103 on macOS."""
STALL = 60
"""Seconds without a sign of life after which a reader is replaced; reading a large model takes some."""


def serve(folder: Path, host: str, port: int, readers: int, token_file: Path | None) -> None:
    """Serve a folder over HTTP until SIGTERM or Ctrl-C; finishes first what a crash left pending.

    Args:
        folder: that ``fit`` made.
        host: address or name to listen at.
        port: 0 for any that is free.
        readers: number of processes that compute lists.
        token_file: text file with the token that callers must send; None for loopback alone.

    Raises:
        UserError: no recommender, a token that is too short or that others can read, none beyond loopback, an address
            that cannot be taken, or a path of the folder for temporary files that is too long for a socket.
    """
    token = None if token_file is None else _token(token_file)
    if token is None and not _is_loopback(host):
        raise UserError(f"--host: {host} can be reached by others; give a --token-file, or serve at 127.0.0.1.")
    service = Service(folder)
    with _listening(host, port) as listening, scratch() as own:
        address = _writer_address(own)
        service.resume()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(own)  # read by prometheus_client in the readers
        settings = Settings(folder, trusted(), address, token)
        writing = _Writing(settings)
        config = uvicorn.Config(
            partial(_interface, settings),
            factory=True,
            workers=readers,
            log_level="warning",
            access_log=False,
            timeout_worker_healthcheck=STALL,
        )
        at = f"[{host}]" if ":" in host else host
        print(f"serving {folder} at http://{at}:{listening.getsockname()[1]}; Ctrl-C stops", flush=True)
        try:
            Multiprocess(config, [listening]).run()
        finally:
            writing.end()


def _interface(settings: Settings) -> "FastAPI":
    """Return the interface of a reading process, which alone waits for FastAPI to be imported."""
    from msgm.recommender.serving.app import create

    return create(settings)


class _Writing:
    """Keeps one writer running, and starts another where one was killed."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._ending = settings, Event()
        self._process = self._started()
        self._keeper = Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _started(self) -> BaseProcess:
        arguments = (self._settings.folder, self._settings.writer, self._settings.trust)
        process = get_context("spawn").Process(target=writer.run, args=arguments)
        process.start()
        return process

    def _keep(self) -> None:
        while True:
            self._process.join()
            if self._ending.wait(0.2):
                return
            self._process = self._started()

    def end(self) -> None:
        """Let the writer finish, and wait for it."""
        self._ending.set()
        while self._keeper.is_alive():
            try:
                writer.stop(self._settings.writer)
            except OSError:  # it is being started, or has ended
                self._keeper.join(0.1)
            else:
                self._keeper.join()


def _token(path: Path) -> str:
    """Return the token. As ssh does with keys, a file of this user that others can read is refused."""
    found = path.stat() if path.is_file() else None
    if found is not None and found.st_uid == os.getuid() and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(
            f"--token-file: {path} can be read by others than its owner; chmod 600 {path}, or make another."
        )
    text = read_bytes(path).decode(errors="replace").strip()
    if len(text) < SHORTEST or not text.isascii() or not text.isprintable() or " " in text:
        raise UserError(f"--token-file: {path} needs one line of at least {SHORTEST} ASCII characters without spaces.")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _writer_address(folder: Path) -> str:
    """Return the path of the writer's socket.

    Raises:
        UserError: it is too long.
    """
    address = str(folder / "writer")
    if len(os.fsencode(address)) > SOCKET_PATH:
        raise UserError(
            f"TMPDIR: {folder.parent} is too long a path for the writer's socket, which takes {SOCKET_PATH} "
            "bytes; name a shorter one."
        )
    return address


def _listening(host: str, port: int) -> socket.socket:
    """Return the open socket. What callers send to it is answered at once, not after TCP's wait for more to send.

    Raises:
        UserError: the address is taken, is not this machine's or is none.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)  # connections have it from here
        return listening
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--host and --port: {host}:{port} cannot be taken ({why}); choose another.") from error
