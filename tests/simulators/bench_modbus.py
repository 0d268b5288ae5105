"""Modbus devices as the tests here ask them: on a line in memory where no time passes."""

from decimal import Decimal

from headend.config.profiles import PACKAGED, load_profile
from protocols.framing import Match
from protocols.modbus.decode import Value, decode
from protocols.modbus.master import ReadRequest, match, read_request, reply_registers
from protocols.modbus.register import DeviceProfile
from simulators.energy import DAY_MS, Timeline
from simulators.modbus_line import ModbusBus
from simulators.modbus_meter import ModbusDevice, ModbusSettings
from simulators.models import make_modbus_inverter, make_modbus_meter
from simulators.wire import WireLink
from tests.simulators.bench645 import NOW_MS, Ear

IMPORT, EXPORT = "active_import_total", "active_export_total"
UNIT = 17
# Midday in Shanghai: panels shine.
NOON_MS = NOW_MS + 6 * 3_600_000


def profile_of(name: str) -> DeviceProfile:
    """One that comes with the program."""
    return load_profile(name, PACKAGED.parent)


class ModbusBench:
    """One device, asked in memory without any time passing but what a test lets pass."""

    def __init__(self, name: str = "eastron_sdm630", kind: str = "pv3", **settings) -> None:
        self.now_ms = NOON_MS
        self.served = []
        self.profile = profile_of(name)
        common = {
            "timeline": Timeline(NOON_MS - 3 * DAY_MS),
            "clock": lambda: self.now_ms,
            "truth_log": self.served.append,
        }
        told = ModbusSettings(UNIT, **settings)
        self.device: ModbusDevice
        if self.profile.kind == "inverter":
            self.device = make_modbus_inverter(told, self.profile, **common)
        else:
            self.device = make_modbus_meter(kind, told, self.profile, **common)
        self.bus = ModbusBus([self.device])
        self.ear = Ear()
        self.link = WireLink(self.bus)
        self.link.attach(self.ear)

    def send(self, raw: bytes) -> bytes:
        """What comes back for these bytes."""
        self.link.write(raw)
        return self.ear.take()

    def ask(self, point: str = IMPORT) -> tuple[ReadRequest, bytes]:
        """The request for a point's registers, and all that comes back."""
        register = self.profile.register(point)
        request = read_request(UNIT, register.function, register.address, register.words)
        return request, self.send(request.raw)

    def words(self, function: int, address: int, count: int) -> tuple[int, ...]:
        """Registers; ErrorReply for a refusal."""
        request = read_request(UNIT, function, address, count)
        raw = self.send(request.raw)
        assert match(request, raw) in (Match.REPLY, Match.REFUSAL), raw.hex(" ")
        return reply_registers(request, raw)

    def read(self, point: str) -> Value:
        """A value as a master decodes it, of the primary side."""
        register = self.profile.register(point)
        words = self.words(register.function, register.address, register.words)
        settings = self.device.settings
        return decode(register, words, ct=settings.ct, pt=settings.pt, apply_ratio=True)

    def number(self, point: str) -> Decimal:
        """`read`, of a number."""
        value = self.read(point)
        assert isinstance(value, Decimal), value
        return value

    def fault(self, text: str, seed: int = 1) -> None:
        """Give the device a fault."""
        self.device.add_fault_text(text, seed)
