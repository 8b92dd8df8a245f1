"""Which addresses are out on the internet, and which hosts and ports web tools may reach there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

_CLOSED_V4 = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # the IETF's own; a cloud's metadata among them
        "192.88.99.0/24",  # relays of IPv6 tunnels
        "168.63.129.16/32",  # looks public, and is the host of every machine on Azure
    )
)
_PUBLIC_V6 = IPv6Network("2000::/3")
"""All that is given out for the internet (RFC 4291). What is not in it is local, mapped, or nothing."""
_CLOSED_V6 = tuple(
    ip_network(text)
    for text in (
        "2001::/23",  # the IETF's own, Teredo's tunnels to any IPv4 address among them
        "2001:db8::/32",
        "2002::/16",  # tunnels to any IPv4 address
        "3fff::/20",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
"""How a network without IPv4 writes IPv4 addresses (RFC 6052)."""

_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_DOTTED = re.compile(r"(0|[1-9][0-9]{0,2})(\.(0|[1-9][0-9]{0,2})){3}")


def is_public(text: str) -> bool:
    """Whether this is the address of a machine out on the internet; False for what is no address at all."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return _is_public_v4(IPv4Address(int(address) & 0xFFFFFFFF))
        return (
            address.scope_id is None
            and address in _PUBLIC_V6
            and address.is_global
            and not any(address in network for network in _CLOSED_V6)
        )
    return _is_public_v4(address)


def _is_public_v4(address: IPv4Address) -> bool:
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved)
        and not any(address in network for network in _CLOSED_V4)
    )


def is_odd_number(host: str) -> bool:
    """Whether this is an IPv4 address in a form other than four plain numbers: `2130706433`, `0x7f.1`, `0177.0.0.1`.

    Resolvers and libraries differ in what they read from these, so nobody needs them but who wants to hide something.
    """
    last = host.rpartition(".")[2]
    return bool(_NUMBER.fullmatch(last)) and not _DOTTED.fullmatch(host)


def is_open_port(port: int) -> bool:
    """The web's own ports and those above the system's: mail servers and the like don't get requests by web tools."""
    return port in (80, 443) or 1024 <= port <= 65535


def in_domains(host: str, domains: Sequence[str]) -> bool:
    """Whether `host` is in one of the domains. `example.com` is itself and what is below it, `*` everything."""
    for domain in domains:
        name = domain.lower().rstrip(".")
        if name == "*" or host == name.removeprefix("*.") or host.endswith("." + name.removeprefix("*.")):
            return True
    return False
