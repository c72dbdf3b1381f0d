"""Prepares a server before any actor starts: writes release 0 and keys, finds free ports. Starts no Ray."""

import asyncio
import contextlib
import logging
import multiprocessing
import signal
import socket
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from actors.config import ServerConfig
from actors.errors import ServerError
from actors.ports import free_ports
from fleetfl.events.event_log import parts
from fleetfl.protocol.addresses import authority, family
from fleetfl.protocol.messages import SERVER
from fleetfl.protocol.signing import Signer
from fleetfl.registry import ban
from fleetfl.registry.adapter_file import read_adapter, says_meaning, write_adapter
from fleetfl.storage import client_ids
from fleetfl.transport import TransportConfig
from fleetfl.vectors import Layout

log = logging.getLogger(__name__)


def set_aside(config: ServerConfig) -> Path | None:
    """Move the state that a server would resume from into a folder, for people; None if there is no state."""
    aside = config.state / f"before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    moved = None
    # The events too: they tell which rows of that journal were told.
    for path in (
        config.journal_path.parent,
        config.checkpoint_folder,
        config.releases.folder,
        *parts(config.state / "events.jsonl"),
        config.told_path,
        ban.listing(config.state),  # the bans are rows of the journal
    ):
        if path.exists():
            aside.mkdir(exist_ok=True)
            path.rename(aside / path.name)
            moved = aside
    return moved


def with_initial(config: ServerConfig) -> ServerConfig:
    """The settings with release 0 on disk. Raises AdapterFileError, ModelError or ServerError."""
    path = None if config.initial is None else config.initial.absolute()
    runs_model = config.http is not None or config.held_out is not None
    if path is not None and not runs_model and says_meaning(path):
        # Nothing of ours runs the model, and building it to compare takes torch and seconds.
        return config.model_copy(update={"initial": path})
    model = config.model.build(seed=config.seed)
    if path is None:
        path = config.state / "initial.safetensors"
        write_adapter(path, model.layout, model.vector())
    else:
        path = _meant(path, model.layout, config, must_fit=runs_model)
    held_out = None if config.held_out is None else config.held_out.absolute()
    return config.model_copy(update={"initial": path, "held_out": held_out})


def _meant(path: Path, layout: Layout, config: ServerConfig, *, must_fit: bool) -> Path:
    """The adapter file, or a copy that states what its values mean if an older version wrote it.

    Raises ServerError if it is of another model, unless it need not fit.
    """
    found, vector = read_adapter(path)
    unlike = found.difference(layout)
    if unlike and not must_fit:
        log.warning("%s does not fit the `model` settings: %s", path, unlike)
        return path
    if unlike:
        raise ServerError(f"{path} does not fit the `model` settings, it differs in {unlike}")
    if found == layout:
        return path
    log.warning(
        "%s does not say what its values mean, as older versions' files: taken to be of the `model` settings",
        path,
    )
    meant = config.state / "initial.safetensors"
    write_adapter(meant, layout, vector)
    return meant


@contextlib.contextmanager
def initial_beside(config: ServerConfig) -> Iterator[Callable[[], ServerConfig]]:
    """Run `with_initial` in its own process; the function given waits for the result, and raises as it does.

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
    keys = config.keys.model_copy(update={"folder": folder})
    keys.build(config.fleet, config.state)
    return config.model_copy(update={"keys": keys})


def with_ports(config: ServerConfig) -> ServerConfig:
    """The settings with ports that are free. Raises ServerError if one is taken."""
    http, monitor = config.http, config.monitor
    if http is not None:
        http = http.model_copy(update={"port": free_port("server.http", http.host, http.port)})
    port = free_port("server.monitor", monitor.host, config.monitor_port)
    monitor = monitor.model_copy(update={"port": port})
    return config.model_copy(update={"http": http, "monitor": monitor})


def require_ports(config: ServerConfig) -> None:
    """Raises ServerError if a port of these settings is taken."""
    with_ports(config)


def require_broker(transport: TransportConfig, fleet: str) -> None:
    """Raises TransportError, which says why, if the broker lets nobody in."""

    async def there_and_away() -> None:
        async with transport.connect(client_ids.passing(fleet)):
            pass

    asyncio.run(there_and_away())


def with_session(config: ServerConfig) -> None:
    """Draw the server's part of the gateways' client ids, at the first start.

    The broker then forgets the sessions of the ids that earlier code had. Raises ServerError.
    """
    is_new = not (config.state / client_ids.FILE).exists()
    try:
        client_ids.server_of(config.state)
    except OSError as failed:
        raise ServerError(f"server.state: {config.state}: {failed.strerror}") from failed

    async def forget() -> None:
        names = [client_ids.gateway_before(config.fleet, n) for n in range(config.num_partitions)]
        await asyncio.gather(*map(config.transport.forget, names))

    if is_new and config.journal_path.exists():
        asyncio.run(forget())


def free_port(what: str, host: str, port: int) -> int:
    """The port, or a free one for 0.

    Raises ServerError if something listens there: Ray Serve would only say so in its logs.
    """
    try:
        if port == 0:
            return free_ports(1, host=host)[0]
        with socket.socket(family(host)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return port
    except OSError as unusable:
        raise ServerError(
            f"{what} {authority(host, port)} cannot be listened on ({unusable.strerror or unusable}); "
            f"choose another with --set {what}.port=N"
        ) from unusable
