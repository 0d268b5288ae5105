"""The example broker of config/mosquitto, as it stands there.

Only where its files lie and which ports it takes is written anew, on this machine's loopback; and
two users are added to the access list for the tests to look on with: `sees` reads everything,
`says` writes everything.
"""

import os
import shutil
from pathlib import Path

from headend.messages.broker import BrokerSpec, TlsSpec
from tests.support.certificates import Authority
from tests.support.mosquitto import Mosquitto, free_port

EXAMPLE = Path(__file__).parents[2] / "config" / "mosquitto"
PASSWORD = "pass-word-of-"
LOOK_ON = """
user sees
topic read #

user says
topic write #
"""


class ExampleBroker(Mosquitto):
    """`Mosquitto` with the example's files. `users` stand in its file of passwords."""

    def __init__(self, folder, users):
        super().__init__(folder, users={user: PASSWORD + user for user in users})
        self.tls_port = free_port()
        self.authority = Authority(folder)
        self.authority.server(file="broker")

    def certificate(self, user, *, port=None):
        """How a holder of the certificate of `user` reaches it."""
        ours = self.authority.client(user)
        tls = TlsSpec(self.authority.ca_file, ours.cert_file, ours.key_file)
        return BrokerSpec("localhost", port or self.tls_port, tls=tls)

    def access_list(self) -> Path:
        """The running broker's copy."""
        return self.folder / "acl"

    def _write_configuration(self) -> None:
        shutil.copy(EXAMPLE / "acl", self.access_list())
        with self.access_list().open("a") as acl:
            acl.write(LOOK_ON)
        for there, here in (("broker.pem", "ca-broker.pem"), ("broker.key", "ca-broker.key")):
            shutil.copy(self.folder / here, self.folder / there)
        self._passwords().rename(self.folder / "passwords")
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        text = (EXAMPLE / "mosquitto.conf").read_text()
        for written, meant in (
            ("/etc/mosquitto/headend", str(self.folder)),
            ("/var/lib/mosquitto/", f"{state}/"),
            ("listener 8883\n", f"listener {self.tls_port} 127.0.0.1\n"),
            ("listener 1883 localhost\n", f"listener {self.port} localhost\n"),
        ):
            assert written in text, f"the example has no {written}"
            text = text.replace(written, meant)
        if os.getuid() == 0:
            text = "user root\n" + text
        (self.folder / "mosquitto.conf").write_text(text)


def passwords_are_hashed(path: Path) -> bool:
    """Whether a file of passwords holds none in the clear."""
    return PASSWORD not in path.read_text()
