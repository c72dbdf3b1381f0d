"""Opens a socket to the broker, and explains in words why there is none. Knows no packet."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
from typing import Any

from cryptography import x509
from paho.mqtt.client import Client as Paho
from paho.mqtt.client import WebsocketConnectionError
from paho.mqtt.reasoncodes import ReasonCode

from fleetfl.storage.client_ids import MOST_FOR_ALL
from fleetfl.transport._mqtt_settings import ConnectionSettings

NOT_YET_VALID, EXPIRED = 9, 10
"""Error numbers of OpenSSL (X509_V_ERR_...)."""


class Dialler(Paho):
    """paho's client, repaired: it leaves sockets open whose handshake fails, and sends unmasked pongs."""

    _opened: socket.socket | ssl.SSLSocket | None = None

    def _create_socket(self) -> Any:
        try:
            made: Any = super()._create_socket()
        except BaseException:
            if self._opened is not None:
                self._opened.close()
            raise
        return _repaired(made) if self._transport == "websockets" else made

    def _create_socket_connection(self) -> Any:
        self._opened = super()._create_socket_connection()
        return self._opened

    def _ssl_wrap_socket(self, tcp_sock: Any) -> Any:
        assert self._ssl_context is not None
        wrapped = self._ssl_context.wrap_socket(
            tcp_sock, server_hostname=self._host, do_handshake_on_connect=False
        )
        self._opened = wrapped  # the plain one is detached
        wrapped.settimeout(self._connect_timeout)
        wrapped.do_handshake()
        return wrapped


def _repaired(websocket: Any) -> Any:
    """paho's websocket without two of its faults."""
    frame, send = websocket._create_frame, websocket.send

    def masked(opcode: int, data: bytearray, _masked: int = 1) -> bytearray:
        # What a client sends has to be masked (RFC 6455, 5.1); paho's answer to a ping is not.
        return frame(opcode, bytearray(data), 1)

    def send_all(data: bytes) -> int:
        # 0 where the socket took a part: paho then forgets the packet, of which half is on its way.
        sent = send(data)
        if data and not sent:
            raise BlockingIOError
        return sent

    websocket._create_frame, websocket.send = masked, send_all
    return websocket


def refusal(code: ReasonCode, paho: Paho) -> str:
    """Description of a broker's refusal of the connection."""
    client_id = paho._client_id.decode(errors="replace")
    if code.getName() == "Client identifier not valid":
        return (
            f"the broker refused: {code}: {client_id!r} of {len(client_id)} characters (brokers of MQTT 3.1 "
            f"take at most {MOST_FOR_ALL}); its rules may ask for `client_id_prefix`"
        )
    return f"the broker refused: {code}"


def reason_of(error: BaseException, config: ConnectionSettings) -> str:
    """Description of the obstacle to a connection, and its place: name, network, TLS or the broker."""
    told = f"{type(error).__name__}: {error}"
    words = _words(error, config)
    return f"{words} ({told})" if words else f"{told}{_own_certificate(config)}"


def _words(error: BaseException, config: ConnectionSettings) -> str:
    where, websocket = config.address, config.websocket
    if isinstance(error, ssl.SSLError):
        return f"TLS: {_unspoken(error, config)}"
    if isinstance(error, WebsocketConnectionError):
        # A query may hold a token.
        path = "" if websocket is None else websocket.path.split("?")[0]
        return f"websocket: what listens at {where} has none for MQTT at {path}"
    for kind, words in (
        (socket.gaierror, f"DNS: nobody knows the name {config.host!r}"),
        (ConnectionRefusedError, f"nothing listens at {where}"),
        (
            ConnectionResetError,
            f"{where} hung up: {'does it speak' if config.tls else 'does it want'} TLS?",
        ),
        (TimeoutError, f"no answer from {where}: is the address right, and a firewall open?"),
    ):
        if isinstance(error, kind):
            return words
    return ""


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == NOT_YET_VALID:
        return f"the broker's certificate is not valid yet; {_clock()}"
    if error.verify_code == EXPIRED:
        return f"the broker's certificate has expired; {_clock()}"
    return (
        "the broker's certificate is not trusted: is `ca_file` its authority, and `host` its name?"
    )


def _unspoken(error: ssl.SSLError, config: ConnectionSettings) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error)
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return f"what listens at {config.address} speaks none"
    own = _own_certificate(config)
    return f"the broker ended the handshake{own}" if own else "no agreement with the broker"


def _clock() -> str:
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC: is that right?"


def _own_certificate(config: ConnectionSettings) -> str:
    """Description of wrong dates of the client's certificate; empty if they are right or there is none."""
    if config.cert_file is None:
        return ""
    now = datetime.datetime.now(datetime.timezone.utc)
    with contextlib.suppress(Exception):  # OpenSSL has read it: what it is called is not worth more
        own = x509.load_pem_x509_certificate(config.cert_file.read_bytes())
        begins, ends = own.not_valid_before_utc, own.not_valid_after_utc
        if now < begins:
            return f"; our certificate {config.cert_file} is valid only from {begins:%Y-%m-%d} on; {_clock()}"
        if now > ends:
            return f"; our certificate {config.cert_file} expired on {ends:%Y-%m-%d}; {_clock()}"
    return ""
