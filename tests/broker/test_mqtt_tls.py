"""TLS with a certificate on both sides, as a fleet would run it."""

import asyncio
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from actors.ports import free_ports
from fleetfl.transport import TransportError
from fleetfl.transport.mqtt import Config
from sim.processes.brokers import mosquitto

pytestmark = pytest.mark.broker


def test_packets_pass_under_tls_and_strangers_stay_outside(tmp_path: Path) -> None:
    """300 KB is many TLS records: what is decrypted already must be read without a wake-up."""
    write_certificates(tmp_path)
    port = free_ports(1)[0]
    listener = f"""
listener {port} 127.0.0.1
allow_anonymous true
cafile {tmp_path}/ca.pem
certfile {tmp_path}/broker.pem
keyfile {tmp_path}/broker.key
require_certificate true
"""
    stranger = Config(port=port, tls=True, ca_file=tmp_path / "ca.pem", max_payload_bytes=2**20)
    drone = stranger.model_copy(
        update={"cert_file": tmp_path / "vehicle.pem", "key_file": tmp_path / "vehicle.key"}
    )
    distrustful = drone.model_copy(update={"ca_file": None})

    async def scenario() -> None:
        async with drone.connect("v") as car, car.subscribe("up/#") as packets:
            await asyncio.gather(*(car.publish("up/v", bytes(300_000)) for _ in range(20)))
            for _ in range(20):
                packet = await asyncio.wait_for(packets.__anext__(), 10)
                packet.ack()
                assert len(packet.payload) == 300_000
        for config, reason in (
            (stranger, r"attempts, the last: (?!no answer)"),
            (distrustful, "the last: TLS: .*SSLCertVerificationError"),
        ):
            with pytest.raises(TransportError, match=reason):
                async with config.connect("x", patience_s=0.5):
                    pass

    with mosquitto(tmp_path / "mosquitto", extra_config=listener):
        asyncio.run(asyncio.wait_for(scenario(), 60))


def test_missing_certificate_is_named() -> None:
    async def scenario() -> None:
        async with Config(tls=True, ca_file=Path("/nowhere/ca.pem")).connect("v"):
            pass

    with pytest.raises(TransportError, match="ca_file=/nowhere/ca"):
        asyncio.run(scenario())


def write_certificates(folder: Path) -> None:
    """ca.pem; broker.pem for 127.0.0.1; vehicle.pem for CN=drone-07. Keys in <name>.key.

    early.pem and late.pem are as broker.pem, of two days later and earlier.
    """
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _named("test authority")
    ca = _certificate(ca_name, ca_key, ca_name, ca_key, is_ca=True)
    _write(folder, "ca", ca, ca_key)
    for file, common_name, days in (
        ("broker", "broker", 0),
        ("vehicle", "drone-07", 0),
        ("early", "broker", 2),
        ("late", "broker", -2),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(_named(common_name), key, ca_name, ca_key, days=days)
        _write(folder, file, made, key)


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool = False,
    days: int = 0,
) -> x509.Certificate:
    now = datetime.now(timezone.utc) + timedelta(days=days)
    address = x509.IPAddress(IPv4Address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _write(
    folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
    private = serialization.PrivateFormat.PKCS8
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(pem, private, serialization.NoEncryption())
    )
