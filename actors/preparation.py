"""What is settled before any actor starts: release 0 and the keys on disk, ports that are free."""

import contextlib
import multiprocessing
import signal
import socket
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from actors.config import ServerConfig
from actors.errors import ServerError
from fleetfl.adapter_file import read_adapter, write_adapter
from fleetfl.identity import Signer
from fleetfl.messages import SERVER
from fleetfl.ports import free_ports


def set_aside(config: ServerConfig) -> None:
    """Move what a server would go on from out of its way, for a person to keep or delete."""
    aside = config.state / f"before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    # The events too: they tell which rows of that journal were told.
    for path in (
        config.journal_path.parent,
        config.checkpoint_folder,
        config.releases.folder,
        config.state / "events.jsonl",
    ):
        if path.exists():
            aside.mkdir(exist_ok=True)
            path.rename(aside / path.name)


def with_initial(config: ServerConfig) -> ServerConfig:
    """The settings with release 0 on disk. Raises AdapterFileError, ModelError or ServerError."""
    path = None if config.initial is None else config.initial.absolute()
    if path is not None and config.http is None and config.held_out is None:
        # Nothing of ours runs the model, and building it to compare takes torch and seconds.
        return config.model_copy(update={"initial": path})
    model = config.model.build(seed=config.seed)
    if path is None:
        path = config.state / "initial.safetensors"
        write_adapter(path, model.layout, model.vector())
    layout, _ = read_adapter(path)
    if layout != model.layout:
        raise ServerError(
            f"{path} has layout {layout.fingerprint.hex()} ({layout.size} values), the `model` settings "
            f"ask for {model.layout.fingerprint.hex()} ({model.layout.size} values)"
        )
    held_out = None if config.held_out is None else config.held_out.absolute()
    return config.model_copy(update={"initial": path, "held_out": held_out})


@contextlib.contextmanager
def initial_beside(config: ServerConfig) -> Iterator[Callable[[], ServerConfig]]:
    """Have `with_initial` done in a process of its own; what is given waits for it, and raises as it does.

    So Ray starts meanwhile, and torch with its 300 MB is not in the server's main process.
    """
    if config.initial is not None:
        read_adapter(config.initial)  # what is wrong with the file itself is said at once
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_send_initial, args=(config, its), name="release 0")
    process.start()
    its.close()

    def result() -> ServerConfig:
        try:
            found = ours.recv()
        except EOFError as ended:
            process.join()
            raise ServerError(
                f"the process that makes release 0 ended with status {process.exitcode} (-9: killed, "
                "as where memory runs out)"
            ) from ended
        if isinstance(found, Exception):
            raise found
        return found

    try:
        yield result
    finally:
        process.terminate()  # if nobody waited
        process.join()


def _send_initial(config: ServerConfig, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server
    try:
        pipe.send(with_initial(config))
    except Exception as unfit:  # raised in the server
        pipe.send(unfit)


def with_keys(config: ServerConfig) -> ServerConfig:
    """The settings with the server's key on disk and its public half beside it. Raises IdentityError."""
    Signer.from_file(config.fleet, config.state / "key.pem").write_public(SERVER, config.state)
    folder = config.keys.folder and config.keys.folder.absolute()
    return config.model_copy(update={"keys": config.keys.model_copy(update={"folder": folder})})


def with_ports(config: ServerConfig) -> ServerConfig:
    """The settings with ports that are free. Raises ServerError if one is taken."""
    http, monitor = config.http, config.monitor
    if http is not None:
        http = http.model_copy(update={"port": free_port("server.http", http.host, http.port)})
    port = free_port("server.monitor", monitor.host, config.monitor_port)
    monitor = monitor.model_copy(update={"port": port})
    return config.model_copy(update={"http": http, "monitor": monitor})


def free_port(what: str, host: str, port: int) -> int:
    """The port, or a free one for 0.

    Raises ServerError if something listens there: Ray Serve would only say so in its logs.
    """
    try:
        if port == 0:
            return free_ports(1, host=host)[0]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return port
    except OSError as unusable:
        raise ServerError(
            f"{what} {host}:{port} cannot be listened on ({unusable.strerror or unusable}); "
            f"choose another with --set {what}.port=N"
        ) from unusable
