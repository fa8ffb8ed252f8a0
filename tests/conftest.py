"""What holds in every test: loopback only, no settings of whoever runs it, and failures that reproduce."""

import ipaddress
import os
import signal
import socket

from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # two workers share two cores: slow is no finding here
)
settings.register_profile("deep", settings.get_profile("default"), derandomize=False, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_KEYS = ("GEMINI_API_KEY", "LINEAR_API_KEY")
for _name in [name for name in os.environ if name.startswith("GRIDGOV_") or name in _KEYS]:
    if _name != "GRIDGOV_SCREENSHOTS":  # where pictures of pages go
        del os.environ[_name]
os.environ["GRIDGOV_HOME"] = "/nonexistent/gridgov"  # a test that starts a Postgres of our own says where


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and every process started from here would be deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class NetworkRefused(RuntimeError):
    """No OSError, so that no code under test takes it for an outage and carries on."""


def _refuse_unless_loopback(host):
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        address = None
    if address is None or not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
        raise NetworkRefused(f"tests reach loopback only, and this went to {name!r}: use a stub of sim/stubs")


def _guarded(method, address_of):
    """The socket method, refusing internet addresses other than loopback (AF_UNIX passes)."""

    def call(self, *args):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _refuse_unless_loopback(address_of(args)[0])
        return method(self, *args)

    return call


_getaddrinfo = socket.getaddrinfo


def _guarded_getaddrinfo(host, *args, **kwargs):
    _refuse_unless_loopback(host)
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect = _guarded(socket.socket.connect, lambda args: args[0])
socket.socket.connect_ex = _guarded(socket.socket.connect_ex, lambda args: args[0])
socket.socket.sendto = _guarded(socket.socket.sendto, lambda args: args[-1])
socket.getaddrinfo = _guarded_getaddrinfo
