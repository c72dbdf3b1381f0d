"""What stands between a client and its broker is said by its name: DNS, network, TLS, clock, login, rules."""

import asyncio
from pathlib import Path

import pytest

from actors.ports import free_ports
from fleetfl.transport import TransportError
from fleetfl.transport.mqtt import Config
from sim.processes.brokers import mosquitto
from tests.broker.test_mqtt_tls import write_certificates

pytestmark = pytest.mark.broker


async def refusal(config: Config) -> str:
    with pytest.raises(TransportError) as refused:
        async with config.connect("v", patience_s=0.6):
            pass
    return str(refused.value)


def test_each_reason_has_its_words(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    plain, early, late, nobody = free_ports(4)
    (tmp_path / "passwords").write_text("")
    listeners = "\n".join(
        f"listener {port} 127.0.0.1\nallow_anonymous true\n"
        f"certfile {tmp_path}/{name}.pem\nkeyfile {tmp_path}/{name}.key"
        for port, name in ((early, "early"), (late, "late"))
    )
    listeners += f"\nlistener {plain} 127.0.0.1\npassword_file {tmp_path}/passwords\n"
    trusting = Config(tls=True, ca_file=tmp_path / "ca.pem")

    def at(port: int) -> Config:
        return trusting.model_copy(update={"port": port})

    async def scenario() -> None:
        cases = {
            "DNS: nobody knows the name 'no.such.invalid'": Config(host="no.such.invalid"),
            f"nothing listens at 127.0.0.1:{nobody}": Config(port=nobody),
            "the broker refused: Not authorized": Config(port=plain, username="x", password="y"),
            "TLS: the broker's certificate is not valid yet; this machine's clock says": at(early),
            "TLS: the broker's certificate has expired; this machine's clock says": at(late),
            "TLS: the broker's certificate is not trusted": Config(port=early, tls=True),
            f"127.0.0.1:{plain} hung up: does it speak TLS?": at(plain),
        }
        said = await asyncio.gather(*map(refusal, cases.values()))
        for words, told in zip(cases, said, strict=True):
            assert words in told

    with mosquitto(tmp_path / "mosquitto", extra_config=listeners):
        asyncio.run(asyncio.wait_for(scenario(), 60))
