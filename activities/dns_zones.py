"""A zone at its primary name server: a record and its mark, read and changed by compare-and-swap (RFC 2136, TSIG)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.tsig
import dns.update

from activities.pointing import Mark, heed, mine
from recovery.actions import Spec
from recovery.errors import Fatal, Invalid, RecoveryError, Refused, Transient
from recovery.models import Wire
from runbooks.schema import Dns

LIMIT = 5.0
"""Seconds that a name server has to answer."""
RESOLVER_LIMIT = 2.0
"""Seconds that a resolver has."""
TRIES = 20
"""How often a write is tried while others change the record."""
PAUSE = 0.05
MARKED = "_recovery"
"""The name, below that of a record, of the TXT record that tells whose write was the last, for each type of record."""
LOST = (OSError, EOFError, TimeoutError, dns.exception.Timeout)
CHANGED = (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN)
"""How a server says that a prerequisite does not hold."""
for _type, _text in (("A", "192.0.2.1"), ("AAAA", "2001:db8::1"), ("CNAME", "example."), ("TXT", "x")):
    # Else its class is imported when it is needed first: where that is in a workflow's sandbox, as a copy of its own,
    # which is then no record to any activity of this worker.
    dns.rdataset.from_text("IN", _type, 0, _text)


class KeyAt(Wire):
    """A TSIG key, by its name; ``secret`` is a file beside the worker."""

    name: str
    algorithm: str
    secret: str


class RecordSpec(Spec):
    """A record of a zone; ``server`` is address:port of its primary, ``ttl`` that of a recovery, in seconds."""

    server: str
    zone: str
    record: str
    type: str
    sites: dict[str, str]
    nobody: str
    key: KeyAt
    ttl: int
    resolvers: tuple[str, ...]

    @classmethod
    def of(cls, system: str, director: Dns, **more: Any) -> Self:
        """Return the spec for a director of the estate."""
        return cls.model_validate(director.model_dump(exclude={"kind", "url"}) | {"system": system} | more)

    @property
    def name(self) -> dns.name.Name:
        """The name of the record."""
        return dns.name.from_text(self.record)

    def text(self, value: str) -> str:
        """Return a value as records of this type have it. Raises Invalid."""
        try:
            found = dns.rdata.from_text(dns.rdataclass.IN, self.type, value, origin=dns.name.root, relativize=False)
        except (dns.exception.DNSException, ValueError):
            raise Invalid(f"sites: {self.system} has a value that is no {self.type}") from None
        return found.to_text().lower()

    def value(self, site: str) -> str:
        """Return the value for a site, "" for nobody. Raises Invalid for a site that has none."""
        if site and site not in self.sites:
            raise Invalid(f"sites: {self.system} has no value for {site}; name it in the estate")
        return self.text(self.sites[site] if site else self.nobody)


class Written(NamedTuple):
    """What a record says, its values in order, with its TTL in seconds: none is no record."""

    values: tuple[str, ...] = ()
    ttl: int = 0


class Zone(NamedTuple):
    """A record as it was read, whose write was the last, and the TTL that it has outside of recoveries.

    ``record`` and ``marks`` are what must still be there when it is changed.
    """

    written: Written
    mark: Mark
    usual: int
    record: dns.rdataset.Rdataset | None
    marks: dns.rdataset.Rdataset | None


async def read(spec: RecordSpec) -> Zone:
    """Read the record and the marks beside it, from the primary."""
    record = await _record(spec, spec.name, spec.type)
    marks = await _record(spec, _marked(spec), "TXT")
    written = Written(tuple(sorted(one.to_text().lower() for one in record or ())), record.ttl if record else 0)
    mark, usual = _told(spec, marks)
    return Zone(written, mark, usual or written.ttl, record, marks)


async def swap(spec: RecordSpec, change: Callable[[Zone], Written]) -> None:
    """Write what ``change`` makes of the record, if nobody has changed it since it was read; else read it again.

    A write whose answer was lost is looked for the same way. Raises Stale where a later hand has written.
    """
    own = mine(spec.system)
    for _ in range(TRIES):
        found = await read(spec)
        heed(spec.system, own, found.mark)
        wanted = change(found)
        if (wanted == found.written and own == found.mark) or await _put(spec, found, wanted, own):
            return
        await asyncio.sleep(PAUSE)
    raise Transient(f"{spec.system}: others keep changing the record, or {spec.server} does not keep to its answers")


async def resolved(spec: RecordSpec, resolver: str) -> tuple[str, ...] | None:
    """Return what a resolver answers, in order, as clients are told it; None where it does not answer."""
    asked = dns.message.make_query(spec.name, spec.type)
    try:
        address, port = server(resolver)
        answer, _ = await dns.asyncquery.udp_with_fallback(asked, address, timeout=RESOLVER_LIMIT, port=port)
    except (*LOST, dns.exception.DNSException):
        return None
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return None
    found = answer.get_rrset(answer.answer, spec.name, dns.rdataclass.IN, dns.rdatatype.from_text(spec.type))
    return tuple(sorted(one.to_text().lower() for one in found or ()))


def server(text: str) -> tuple[str, int]:
    """Return address and port of a name server."""
    address, _, port = text.rpartition(":")
    return address.strip("[]"), int(port)


async def _record(spec: RecordSpec, name: dns.name.Name, kind: str) -> dns.rdataset.Rdataset | None:
    asked = dns.message.make_query(name, kind, flags=0)  # not recursively: this is who has to know
    answer = await _ask(spec, asked)
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise _failure(spec, answer.rcode())
    if not answer.flags & dns.flags.AA:
        raise Invalid(f"server: {spec.server} is not the primary of {spec.zone}, for it does not answer with authority")
    found = answer.get_rrset(answer.answer, name, dns.rdataclass.IN, dns.rdatatype.from_text(kind))
    return None if found is None else found.to_rdataset()


async def _put(spec: RecordSpec, found: Zone, wanted: Written, own: Mark) -> bool:
    """Send the update; tell whether the server has done it. It does all of it, or nothing.

    No prerequisite can ask for a TTL: one that somebody else sets in these milliseconds is overwritten.
    """
    update = dns.update.UpdateMessage(spec.zone)
    parts = [(spec.name, spec.type, found.record, _rdataset(spec.type, wanted))]
    if own.epoch:  # nobody without a lease writes where one has: heed() has seen to that
        usual = 0 if wanted.ttl == found.usual else found.usual
        parts.append((_marked(spec), "TXT", found.marks, _marks(spec, found, own, usual)))
    else:
        parts.append((_marked(spec), "TXT", found.marks, found.marks))
    for name, kind, was, becomes in parts:
        if was is None:
            update.absent(name, kind)
        else:
            update.present(name, *was)
        if becomes is was:
            continue
        update.delete(name, kind)
        if becomes is not None:
            update.add(name, becomes)
    try:
        answer = await _ask(spec, update)
    except Transient:
        return False
    if answer.rcode() in CHANGED:
        return False
    if answer.rcode() != dns.rcode.NOERROR:
        raise _failure(spec, answer.rcode())
    return True


def _rdataset(kind: str, wanted: Written) -> dns.rdataset.Rdataset | None:
    return dns.rdataset.from_text("IN", kind, wanted.ttl, *wanted.values) if wanted.values else None


def _marked(spec: RecordSpec) -> dns.name.Name:
    return dns.name.from_text(MARKED, spec.name)


def _marks(spec: RecordSpec, found: Zone, own: Mark, usual: int) -> dns.rdataset.Rdataset:
    others = [one.to_text() for one in found.marks or () if not one.to_text().startswith(f'"{spec.type} ')]
    told = f'"{spec.type} epoch={own.epoch} order={own.order} attempt={own.attempt} ttl={usual}"'
    return dns.rdataset.from_text("IN", "TXT", 0, *others, told)


def _told(spec: RecordSpec, marks: dns.rdataset.Rdataset | None) -> tuple[Mark, int]:
    """Return whose write was the last, and which TTL it found, if that is to come again (0: it is there)."""
    for one in marks or ():
        text = one.to_text().strip('"')
        if not text.startswith(f"{spec.type} "):
            continue
        numbers = re.fullmatch(r"\w+ epoch=(\d{1,18}) order=(\d{1,18}) attempt=(\d{1,18}) ttl=(\d{1,10})", text)
        if numbers is None:
            raise Invalid(f"record: {MARKED}.{spec.record} (TXT) is not as a recovery wrote it; see who did")
        epoch, order, attempt, ttl = map(int, numbers.groups())
        return Mark(epoch=epoch, order=order, attempt=attempt), ttl
    return Mark(), 0


async def _ask(spec: RecordSpec, message: dns.message.Message) -> dns.message.Message:
    """Ask the primary over TCP, signed; what it answers is signed, too."""
    message.use_tsig(_key(spec))
    address, port = server(spec.server)
    try:
        return await dns.asyncquery.tcp(message, address, timeout=LIMIT, port=port)
    except LOST as error:
        how = type(error).__name__
        raise Transient(f"name server {spec.server} cannot be reached ({how}); does it run?") from None
    except dns.exception.DNSException as error:
        raise _unsigned(spec, error) from None


def _unsigned(spec: RecordSpec, error: dns.exception.DNSException) -> RecoveryError:
    where, key = f"name server {spec.server}", spec.key.name
    if isinstance(error, dns.tsig.PeerBadTime | dns.tsig.BadTime):
        return Refused(f"{where} has another time than this worker: TSIG allows five minutes; set the clocks")
    if isinstance(error, dns.tsig.PeerError | dns.tsig.BadSignature | dns.tsig.BadKey | dns.tsig.BadAlgorithm):
        why = "does not know the key" if isinstance(error, dns.tsig.PeerBadKey) else "has another secret for the key"
        return Refused(f"{where} {why} {key}; see key in the estate, and the file that it names")
    if isinstance(error, dns.exception.FormError):
        return Refused(f"{where} answers unsigned: it does not serve {spec.zone}, or not to the key {key}; see its ACL")
    return Invalid(f"server: {where} does not answer as one does ({type(error).__name__})")


def _failure(spec: RecordSpec, code: dns.rcode.Rcode) -> RecoveryError:
    where, said = f"name server {spec.server}", dns.rcode.to_text(code)
    if code == dns.rcode.REFUSED:
        return Refused(f"{where} does not let the key {spec.key.name} change {spec.zone} ({said}); see its ACL")
    if code in (dns.rcode.NOTAUTH, dns.rcode.NOTZONE):
        return Invalid(f"zone: {where} is not the primary of {spec.zone}, or not for the key {spec.key.name} ({said})")
    if code == dns.rcode.SERVFAIL:
        return Transient(f"{where} failed ({said}); see its log")
    return Refused(f"{where} did not take the change ({said}); see its log")


def _key(spec: RecordSpec) -> dns.tsig.Key:
    """Read the key: base64 alone, or a key file such as tsig-keygen writes."""
    try:
        text = Path(spec.key.secret).read_text()
    except (OSError, ValueError):
        raise Fatal(f"key.secret: {spec.key.secret} cannot be read by this worker; put the secret there") from None
    found = re.search(r'\bsecret:?\s+"?([A-Za-z0-9+/=]+)', text)
    try:
        return dns.tsig.Key(
            dns.name.from_text(spec.key.name), (found[1] if found else text).strip(), spec.key.algorithm
        )
    except (ValueError, dns.exception.DNSException):
        raise Invalid(f"key.secret: {spec.key.secret} holds no secret in base64") from None
