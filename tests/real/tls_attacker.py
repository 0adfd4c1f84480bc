"""Hostile TLS servers, made of tlslite-ng: each breaks one rule of the protocol, which a server of a sound
library would not do. Run by tests/it/tls_attacks.rs; by hand:

    python tls_attacker.py KEYS bad-signature-13 wrong-finished-12

KEYS is a directory with NAME.pem (a chain) and NAME.key for `ecdsa`, `rsa`, `weak` and `other`. For each attack
that is named, or all, the script says on stdout

    listening ATTACK PORT        once, at start
    ended ATTACK REQUESTS WHY    for each connection, when the client has closed it

where REQUESTS counts records that can only be a request: application data of more than 100 bytes, which neither a
Finished nor an alert has. It serves until its stdin ends.
"""

import os
import socket
import sys
import threading

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.constants import AlertDescription, AlertLevel, ContentType, ExtensionType
from tlslite.extensions import ALPNExtension, SrvPreSharedKeyExtension, SrvSupportedVersionsExtension, TLSExtension
from tlslite.messages import (
    Alert, ApplicationData, Certificate, CertificateRequest, CertificateVerify, ChangeCipherSpec,
    EncryptedExtensions, Finished, HelloRequest, Message, NewSessionTicket, ServerHello, ServerHelloDone,
    ServerKeyExchange)

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
FLOOD = 8 << 20


class Cut(Exception):
    """The attacker says no more."""


class Wire:
    """A socket that keeps what it has received."""

    def __init__(self, sock):
        self.sock, self.received = sock, bytearray()

    def recv(self, size):
        data = self.sock.recv(size)
        self.received += data
        return data

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def hello(self):
        """Random and session id of the ClientHello."""
        return self.received[11:43], self.received[44:44 + self.received[43]]

    def requests(self):
        count, at = 0, 0
        while at + 5 <= len(self.received):
            length = int.from_bytes(self.received[at + 3:at + 5], "big")
            count += self.received[at] == ContentType.application_data and length > 100
            at += 5 + length
        return count


class Attacker(TLSConnection):
    """Passes each message that it is about to send through the attack."""

    def __init__(self, wire, attack, key):
        super().__init__(wire)
        self.wire, self.attack, self.key, self.suite, self.server_random = wire, attack, key, None, None
        self.closeSocket = False  # or the end of a handshake would be a reset

    def put(self, message):
        """Sends at once, whatever is queued."""
        if self._buffer_content_type is not None:
            self.run(self._queue_flush())
        self.run(super()._sendMsg(message))

    def put_raw(self, data):
        self.sock.flush()
        self.wire.sendall(data)

    def run(self, steps):
        for _ in steps:
            pass

    def cut(self):
        if self._buffer_content_type is not None:
            self.run(self._queue_flush())
        self.sock.flush()
        raise Cut("cut")

    def _sendMsg(self, msg, *args, **kwargs):
        messages = self.attack.on(self, msg)
        if isinstance(msg, ServerHello):
            self.suite, self.server_random = msg.cipher_suite, msg.random
        for message in messages:
            yield from super()._sendMsg(message, *args, **kwargs)

    def _queue_message(self, msg):
        for message in self.attack.on(self, msg):
            if message.contentType == ContentType.handshake:
                super()._queue_message(message)
            else:
                self.put(message)


class Attack:
    """What is done to messages on their way out, before the handshake, and behind it."""

    def __init__(self, version, on=None, after=None, first=None, key="ecdsa", chain=None, client_cert=False):
        self.version, self.after, self.first = version, after, first
        self.key, self.chain, self.client_cert = key, chain or key, client_cert
        self.change = on

    def on(self, conn, message):
        return apply(self.change, conn, message)

    def settings(self):
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = (3, self.version - 9)
        settings.ticket_count = 0
        settings.minKeySize, settings.rsaSigHashes = 1000, ["sha256"]
        return settings


# --- what can be done to a message; None leaves it as it is -------------------------------------------------

def edit(kind, change):
    def on(conn, message):
        if isinstance(message, kind):
            change(conn, message)
    return on


def drop(*kinds):
    return lambda conn, message: [] if isinstance(message, kinds) else None


def before(kind, *more):
    return lambda conn, message: [*more, message] if isinstance(message, kind) else None


def cut_after(kind):
    def on(conn, message):
        if isinstance(message, kind):
            conn.put(message)
            conn.cut()
    return on


def both(first, second):
    return lambda conn, message: [m for one in apply(first, conn, message) for m in apply(second, conn, one)]


def apply(change, conn, message):
    changed = change(conn, message) if change else None
    return [message] if changed is None else changed


def flip(conn, message):
    message.signature = bytearray(message.signature)
    message.signature[-1] ^= 1


def wrong(conn, message):
    message.verify_data = bytearray(message.verify_data)
    message.verify_data[0] ^= 1


def set_to(**fields):
    return lambda conn, message: [setattr(message, name, value) for name, value in fields.items()]


def extension(made):
    def change(conn, message):
        message.extensions = [e for e in message.extensions or [] if e.extType != made.extType] + [made]
    return change


def sentinel(last):
    """The mark of a server that was made to speak an older version (RFC 8446 section 4.1.3), rightly signed."""
    def change(conn, message):
        if isinstance(message, ServerHello):
            message.random = bytearray(message.random[:-8]) + b"DOWNGRD" + bytes([last])
        if isinstance(message, ServerKeyExchange):
            message.hashAlg, message.signAlg = 4, 3
            message.signature = conn.key.hashAndSign(key_exchange(conn, message), hAlg="sha256")
    return change


def key_exchange(conn, message):
    return conn.wire.hello()[0] + conn.server_random + message.writeParams()


def sign(hash_name, hash_id):
    """An RSA signature that holds, PKCS #1 v1.5, by an algorithm that the client has not offered for this."""
    def change(conn, message):
        if conn.version == (3, 3):
            signed = key_exchange(conn, message)
            message.hashAlg, message.signAlg = hash_id, 1
        else:
            transcript = "sha384" if conn.suite == 0x1302 else "sha256"
            signed = b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + conn._handshake_hash.digest(transcript)
            message.signatureAlgorithm = (hash_id, 1)
        message.signature = conn.key.hashAndSign(signed, "PKCS1", hash_name)
    return change


def zero_share(conn, message):
    share = message.getExtension(ExtensionType.key_share).server_share
    share.key_exchange = bytearray(len(share.key_exchange))


def twice(kind):
    return lambda conn, message: [message, message] if isinstance(message, kind) else None


def send_certificates(*ders):
    """The Certificate message, by hand."""
    def on(conn, message):
        if isinstance(message, Certificate):
            is_13 = conn.version > (3, 3)
            entries = b"".join(len(der).to_bytes(3, "big") + der + b"\0\0" * is_13 for der in ders)
            body = b"\0" * is_13 + len(entries).to_bytes(3, "big") + entries
            return [Message(ContentType.handshake, bytearray(b"\x0b" + len(body).to_bytes(3, "big") + body))]
        return None
    return on


def echo(conn, message):
    message.session_id = conn.wire.hello()[1]


def resume(conn, message):
    """Goes on as if the session were an old one: no certificate, no key exchange."""
    if isinstance(message, ServerHello):
        echo(conn, message)
        conn.put(message)
        conn.put(ChangeCipherSpec())
        conn.put(Message(ContentType.handshake, bytearray(os.urandom(40))))
        conn.cut()


def flood(data):
    def attack(conn, *_):
        sent, block = 0, data * max(1, 16384 // len(data))
        while sent < FLOOD:
            conn.put_raw(block)
            sent += len(block)
        conn.cut()
    return attack


def flood_after(kind, data):
    def on(conn, message):
        if isinstance(message, kind):
            conn.put(message)
            flood(data)(conn)
    return on


def data_for(kind):
    """Data in the place of a message."""
    def on(conn, message):
        if isinstance(message, kind):
            conn.put(EARLY)
            conn.cut()
    return on


def refuse(alert):
    """In place of its own ChangeCipherSpec, when it has seen the client's certificate, or none."""
    def on(conn, message):
        if isinstance(message, ChangeCipherSpec):
            conn.put(Alert().create(alert, AlertLevel.fatal))
            conn.cut()
    return on


# --- what can be done behind the handshake ------------------------------------------------------------------

def serve(more=lambda conn: None):
    """Reads a request, does something more, and answers."""
    def after(conn):
        request = bytearray()
        while b"\r\n\r\n" not in request:
            data = conn.read(max=4096)
            if not data:
                return
            request += data
        more(conn)
        conn.write(ANSWER)
        conn.close()
    return after


def many(count, make):
    return serve(lambda conn: [conn.put(make()) for _ in range(count)])


def renegotiate(end):
    """Asks for a new handshake, as for a client certificate, waits for the answer, and ends."""
    def more(conn):
        conn.put(HelloRequest())
        conn.wire.recv(1)
        end(conn)
    return serve(more)


def key_updates(count, kind):
    return serve(lambda conn: [conn.run(conn.send_keyupdate_request(kind)) for _ in range(count)])


def alert(description):
    def after(conn):
        conn.put(Alert().create(description, AlertLevel.fatal))
        conn.cut()
    return after


def silence(conn):
    while conn.wire.recv(65536):
        pass


TICKET = NewSessionTicket().create(7200, 1, b"\0", bytearray(100), []).write()
UNASKED = TLSExtension(extType=0x7777).create(0x7777, bytearray(b"hi"))
CCS = b"\x14\x03\x03\x00\x01\x01"
WARNING = b"\x15\x03\x03\x00\x02\x01\x70"
EMPTY_HANDSHAKE = b"\x16\x03\x03\x00\x00"
EMPTY_DATA = b"\x17\x03\x03\x00\x00"
HELLO_REQUEST = b"\x16\x03\x03\x00\x04\x00\x00\x00\x00"
REQUEST = CertificateRequest((3, 4)).create(context=b"late", sig_algs=[(4, 3)])
H2, TWO, ODD = (ALPNExtension().create([bytearray(name) for name in names])
                for names in ([b"h2"], [b"http/1.1"] * 2, [b"\xff\x1b"]))
EARLY = ApplicationData().create(bytearray(ANSWER))
OF_13 = (ServerHello, EncryptedExtensions, Certificate, CertificateVerify, Finished)
OF_12 = (ServerHello, Certificate, ServerKeyExchange, ServerHelloDone, ChangeCipherSpec, Finished)

ATTACKS = {
    "control-12": Attack(12),
    "control-13": Attack(13),
    "control-rsa-12": Attack(12, key="rsa"),
    "control-rsa-13": Attack(13, key="rsa"),
    "client-cert-optional-12": Attack(12, client_cert=True),
    "client-cert-optional-13": Attack(13, client_cert=True),
    # Signatures.
    "bad-signature-12": Attack(12, edit(ServerKeyExchange, flip)),
    "bad-signature-13": Attack(13, edit(CertificateVerify, flip)),
    "bad-signature-rsa-12": Attack(12, edit(ServerKeyExchange, flip), key="rsa"),
    "bad-signature-rsa-13": Attack(13, edit(CertificateVerify, flip), key="rsa"),
    "foreign-key-12": Attack(12, key="other", chain="ecdsa"),
    "foreign-key-13": Attack(13, key="other", chain="ecdsa"),
    "sha1-signature-12": Attack(12, edit(ServerKeyExchange, sign("sha1", 2)), key="rsa"),
    "sha1-signature-13": Attack(13, edit(CertificateVerify, sign("sha1", 2)), key="rsa"),
    "pkcs1-signature-13": Attack(13, edit(CertificateVerify, sign("sha256", 4)), key="rsa"),
    "md5-signature-12": Attack(12, edit(ServerKeyExchange, sign("md5", 1)), key="rsa"),
    "no-signature-13": Attack(13, drop(CertificateVerify)),
    "no-key-exchange-12": Attack(12, drop(ServerKeyExchange)),
    "weak-rsa-12": Attack(12, key="weak"),
    "weak-rsa-13": Attack(13, key="weak"),
    # Certificates.
    "no-certificate-12": Attack(12, drop(Certificate)),
    "no-certificate-13": Attack(13, drop(Certificate, CertificateVerify)),
    "empty-certificate-12": Attack(12, send_certificates()),
    "empty-certificate-13": Attack(13, send_certificates()),
    "zero-certificate-12": Attack(12, send_certificates(b"")),
    "zero-certificate-13": Attack(13, send_certificates(b"")),
    "huge-certificate-12": Attack(12, send_certificates(b"\x30" * (3 << 20))),
    "huge-certificate-13": Attack(13, send_certificates(b"\x30" * (3 << 20))),
    "certificate-twice-12": Attack(12, twice(Certificate)),
    "certificate-twice-13": Attack(13, twice(Certificate)),
    # Keys and Finished.
    "zero-share-13": Attack(13, edit(ServerHello, zero_share)),
    "wrong-finished-12": Attack(12, edit(Finished, wrong)),
    "wrong-finished-13": Attack(13, edit(Finished, wrong)),
    # Negotiation.
    "version-ssl3": Attack(12, edit(ServerHello, set_to(server_version=(3, 0)))),
    "version-10": Attack(12, edit(ServerHello, set_to(server_version=(3, 1)))),
    "version-11": Attack(12, edit(ServerHello, set_to(server_version=(3, 2)))),
    "version-unknown": Attack(13, edit(ServerHello, extension(SrvSupportedVersionsExtension().create((3, 5))))),
    "downgrade-12": Attack(12, sentinel(1)),
    "downgrade-11": Attack(12, sentinel(0)),
    "unoffered-suite-12": Attack(12, edit(ServerHello, set_to(cipher_suite=0x002F))),
    "null-suite-12": Attack(12, edit(ServerHello, set_to(cipher_suite=0x0000))),
    "unoffered-suite-13": Attack(13, edit(ServerHello, set_to(cipher_suite=0x1305))),
    "unasked-extension-12": Attack(12, edit(ServerHello, extension(UNASKED))),
    "unasked-extension-13": Attack(13, edit(EncryptedExtensions, extension(UNASKED))),
    "alpn-h2-12": Attack(12, edit(ServerHello, extension(H2))),
    "alpn-h2-13": Attack(13, edit(EncryptedExtensions, extension(H2))),
    "alpn-unknown-13": Attack(13, edit(EncryptedExtensions, extension(ODD))),
    "alpn-two-13": Attack(13, edit(EncryptedExtensions, extension(TWO))),
    # Sessions that never were.
    "session-echo-12": Attack(12, edit(ServerHello, echo)),
    "resume-12": Attack(12, resume),
    "psk-13": Attack(13, both(edit(ServerHello, extension(SrvPreSharedKeyExtension().create(0))),
                              drop(Certificate, CertificateVerify))),
    # Out of order, and too much.
    "hello-twice-12": Attack(12, twice(ServerHello)),
    "early-ccs-12": Attack(12, before(ServerKeyExchange, ChangeCipherSpec())),
    "no-ccs-12": Attack(12, drop(ChangeCipherSpec)),
    "no-finished-12": Attack(12, data_for(Finished)),
    "no-finished-13": Attack(13, data_for(Finished)),
    "early-data-12": Attack(12, before(ServerHelloDone, EARLY)),
    "early-data-finished-12": Attack(12, before(Finished, EARLY)),
    "early-data-13": Attack(13, before(Certificate, EARLY)),
    "early-data-finished-13": Attack(13, before(Finished, EARLY)),
    "ccs-flood-first": Attack(13, first=flood(CCS)),
    "ccs-flood-12": Attack(12, flood_after(ServerHello, CCS)),
    "ccs-flood-13": Attack(13, flood_after(ServerHello, CCS)),
    "warning-flood-12": Attack(12, flood_after(ServerHello, WARNING)),
    "warning-flood-13": Attack(13, flood_after(ServerHello, WARNING)),
    "empty-record-flood-12": Attack(12, flood_after(ServerHello, EMPTY_HANDSHAKE)),
    "empty-data-flood-13": Attack(13, flood_after(ServerHello, EMPTY_DATA)),
    "hello-request-flood-12": Attack(12, flood_after(ServerHello, HELLO_REQUEST)),
    # A client certificate that is demanded.
    "client-cert-12": Attack(12, refuse(AlertDescription.handshake_failure), client_cert=True),
    "client-cert-bad-12": Attack(12, refuse(AlertDescription.bad_certificate), client_cert=True),
    "client-cert-13": Attack(13, client_cert=True, after=alert(AlertDescription.certificate_required)),
    "client-cert-bad-13": Attack(13, client_cert=True, after=alert(AlertDescription.bad_certificate)),
    # Behind the handshake of a server that was verified.
    "late-alert-12": Attack(12, after=serve(alert(AlertDescription.internal_error))),
    "late-alert-13": Attack(13, after=serve(alert(AlertDescription.internal_error))),
    "late-handshake-alert-12": Attack(12, after=serve(alert(AlertDescription.handshake_failure))),
    "renegotiation-12": Attack(12, after=many(1, HelloRequest)),
    "renegotiation-alert-12": Attack(12, after=renegotiate(alert(AlertDescription.handshake_failure))),
    "renegotiation-cut-12": Attack(12, after=renegotiate(Attacker.cut)),
    "renegotiation-silence-12": Attack(12, after=renegotiate(silence)),
    "renegotiation-flood-12": Attack(12, after=many(2000, HelloRequest)),
    "key-update-13": Attack(13, after=key_updates(1, 0)),
    "key-update-odd-13": Attack(13, after=key_updates(1, 2)),
    "key-update-flood-13": Attack(13, after=key_updates(2000, 0)),
    "key-update-request-flood-13": Attack(13, after=key_updates(2000, 1)),
    "ticket-flood-13": Attack(13, after=many(20, lambda: Message(ContentType.handshake, TICKET * 100))),
    "endless-tickets-13": Attack(13, after=many(1 << 30, lambda: Message(ContentType.handshake, TICKET * 100))),
    "empty-data-flood-late-12": Attack(12, after=many(2000, lambda: ApplicationData().create(bytearray()))),
    "empty-data-flood-late-13": Attack(13, after=many(2000, lambda: ApplicationData().create(bytearray()))),
    "late-request-13": Attack(13, after=many(1, lambda: REQUEST)),
}
for kind in OF_12:
    ATTACKS[f"cut-{kind.__name__}-12"] = Attack(12, cut_after(kind))
for kind in OF_13:
    ATTACKS[f"cut-{kind.__name__}-13"] = Attack(13, cut_after(kind))


# --- serving ------------------------------------------------------------------------------------------------

def handle(name, attack, identities, sock):
    wire, why = Wire(sock), "whole"
    sock.settimeout(20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key, chain = identities[attack.key][1], identities[attack.chain][0]
    conn = Attacker(wire, attack, key)
    try:
        if attack.first:
            attack.first(conn)
        conn.handshakeServer(certChain=chain, privateKey=key, reqCert=attack.client_cert, settings=attack.settings(),
                             alpn=[bytearray(b"http/1.1")])
        (attack.after or serve())(conn)
    except Exception as error:  # every end is told, whichever it is
        why = f"{type(error).__name__}: {error}"
    try:
        sock.shutdown(socket.SHUT_WR)
        while wire.recv(65536):
            pass
    except OSError:
        pass
    sock.close()
    say(f"ended {name} {wire.requests()} {' '.join(why.split())}")


def listen(name, attack, identities):
    listener = socket.create_server(("127.0.0.1", 0))
    say(f"listening {name} {listener.getsockname()[1]}")

    def accept():
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=handle, args=(name, attack, identities, sock), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()


lock = threading.Lock()


def say(line):
    with lock:
        print(line, flush=True)


def load(directory):
    identities = {}
    for name in ("ecdsa", "rsa", "other", "weak"):
        chain = X509CertChain()
        with open(f"{directory}/{name}.pem") as file:
            chain.parsePemList(file.read())
        with open(f"{directory}/{name}.key") as file:
            identities[name] = chain, parsePEMKey(file.read(), private=True)
    return identities


def main():
    identities = load(sys.argv[1])
    for name in sys.argv[2:] or ATTACKS:
        listen(name, ATTACKS[name], identities)
    sys.stdin.read()


if __name__ == "__main__":
    main()
