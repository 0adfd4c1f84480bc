"""Asks httpbin the same things twice, over verified TLS and through a fixed route, and says what differs.

    httpbin_compare.py NAME TLS_PORT CA_BUNDLE LISTENER_PORT

Version, status, reason, body and all fields in their spelling have to be equal, and those of one name in their
order; but for what FREE and `Answer` take out. The last line counts; exit 1 unless all are equal.
"""

import gzip
import http.client
import json
import socket
import ssl
import sys
import zlib

import brotlicffi

# What names the proxy itself, the second in which it answered, or a connection of its own (RFC 9110 section 7.6.1).
FREE = {"connection", "date", "via"}
# What httpbin draws anew for each answer, and where.
DRAWN = {"/cache": ["etag", "last-modified"], "/digest-auth/auth/u/p": ["www-authenticate"]}
TIMEOUT = 30


def rows():
    """Method, target, fields, body; a list as a body is sent in chunks."""
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "PROPFIND", "FOOBAR"]:
        yield method, "/anything/a/b?x=1&x=2&y=%20%2F", {"X-A": "1"}, None
    yield "GET", "/get?show_env=1&q=a+b%26c", {"Accept": "application/json", "User-Agent": "old/1.0"}, None
    for method in ["POST", "PUT", "PATCH", "DELETE"]:
        yield method, f"/{method.lower()}", {"Content-Type": "application/json"}, b'{"a": [1, 2, "\xc3\xa9"]}'
        yield method, f"/{method.lower()}", {"Content-Type": "text/plain"}, [b"one ", b"two ", b"x" * 70_000]
    yield "POST", "/post", {"Content-Type": "application/x-www-form-urlencoded"}, b"a=1&b=2&a=%20"
    multipart = b'--b\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\n\0\1\2\r\n--b--\r\n'
    yield "POST", "/post", {"Content-Type": "multipart/form-data; boundary=b"}, multipart
    yield "POST", "/post", {}, b""
    yield "POST", "/post", {}, [b""]
    yield "POST", "/post", {}, bytes(range(256)) * 1000
    yield "POST", "/post", {"Expect": "100-continue", "Content-Type": "text/plain"}, b"after a word"
    yield "GET", "/get", {}, b"a body nobody expects"
    for status in [200, 201, 202, 203, 204, 205, 206, 300, 304, 400, 401, 402, 403, 404, 405, 406, 409, 410, 411, 412,
                   413, 415, 416, 417, 418, 422, 428, 429, 431, 500, 501, 502, 503, 504, 505, 511]:  # fmt: skip
        yield "GET", f"/status/{status}", {}, None
    for method in ["HEAD", "POST", "DELETE"]:
        yield method, "/status/404", {}, None
    for target in ["/redirect/2", "/relative-redirect/2", "/absolute-redirect/1", "/status/308",
                   "/redirect-to?url=/get&status_code=307", "/redirect-to?url=http%3A%2F%2Felsewhere.test%2F"]:  # fmt: skip
        yield "GET", target, {}, None
    yield "POST", "/redirect-to?url=/post&status_code=303", {}, b"x"
    yield "GET", "/cookies", {"Cookie": "a=1; b=two words; c="}, None
    yield "GET", "/cookies/set?a=1&b=2&c=3", {}, None
    yield "GET", "/cookies/delete?a", {"Cookie": "a=1"}, None
    yield "GET", "/response-headers?X-A=1&X-A=2&x-B_c=d&Server=s&Empty=", {}, None
    yield "GET", "/response-headers?Set-Cookie=a%3D1&Set-Cookie=b%3D2", {}, None
    yield "GET", "/response-headers?WWW-Authenticate=Basic&WWW-Authenticate=Digest&Content-Language=de,en", {}, None
    yield "GET", "/headers", {"x-lower": "a", "X-UPPER": "B", "X-Empty": "", "X-Long": "l" * 4000}, None
    yield "GET", "/user-agent", {"User-Agent": "glance-replicator"}, None
    yield "GET", "/ip", {}, None
    for target in ["/gzip", "/deflate", "/brotli", "/encoding/utf8", "/html", "/xml", "/json", "/robots.txt", "/deny"]:
        yield "GET", target, {"Accept-Encoding": "gzip, deflate, br"}, None
    for kind in ["png", "jpeg", "webp", "svg"]:
        yield "GET", f"/image/{kind}", {}, None
    yield "GET", "/image", {"Accept": "image/webp"}, None
    for target in ["/html", "/image/png", "/bytes/1000?seed=1", "/gzip", "/stream-bytes/1000?seed=1", "/redirect/1"]:
        yield "HEAD", target, {}, None
    for target in ["/bytes/0?seed=1", "/bytes/100000?seed=1", "/stream-bytes/100000?seed=2&chunk_size=777", "/stream/5",
                   "/drip?numbytes=5&duration=0.2&delay=0", "/delay/0.1", "/links/3/1", "/base64/aGVsbG8=",
                   "/forms/post", "/uuid", "/cache", "/cache/60"]:  # fmt: skip
        yield "GET", target, {}, None
    yield "GET", "/cache", {"If-None-Match": '"x"'}, None
    yield "GET", "/etag/x", {"If-None-Match": '"x"'}, None
    yield "GET", "/etag/x", {"If-Match": '"y"'}, None
    for span in ["bytes=0-9", "bytes=100-", "bytes=-10", "bytes=2000-"]:
        yield "GET", "/range/1024?chunk_size=100", {"Range": span}, None
    yield "HEAD", "/range/1024", {}, None
    yield "GET", "/basic-auth/u/p", {}, None
    yield "GET", "/basic-auth/u/p", {"Authorization": "Basic dTpw"}, None
    yield "GET", "/hidden-basic-auth/u/p", {}, None
    yield "GET", "/bearer", {"Authorization": "Bearer t"}, None
    yield "GET", "/digest-auth/auth/u/p", {"Cookie": "fake=1"}, None
    yield "GET", "/nowhere", {}, None
    yield "GET", "//double//slash/%7e/%2e%2e/x", {}, None


class Direct(http.client.HTTPConnection):
    """Verified TLS to a server of ours, by the name in its certificate."""

    def __init__(self, name, port, bundle):
        super().__init__(name, port, timeout=TIMEOUT)
        self.context = ssl.create_default_context(cafile=bundle)

    def connect(self):
        tcp = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
        self.sock = self.context.wrap_socket(tcp, server_hostname=self.host)


class Answer:
    """What came, with the fields that are compared and the body as it is meant."""

    def __init__(self, connection, method, target, fields, body):
        chunked = isinstance(body, list)
        if chunked:
            fields = {**fields, "Transfer-Encoding": "chunked"}
        connection.request(method, target, body=iter(body) if chunked else body, headers=fields, encode_chunked=chunked)
        response = connection.getresponse()
        body = response.read()
        self.line = (response.version, response.status, response.reason)
        free = FREE | set(DRAWN.get(target, []))
        self.body, echoes_via = self.neutral(self.decoded(body, response.getheader("Content-Encoding")))
        if echoes_via or method == "HEAD" and target.startswith(("/anything", "/gzip")):
            free |= {"content-length"}
        if method == "HEAD":
            # There is nothing to transfer.
            free |= {"transfer-encoding"}
        # A link to the server leads to where it was asked: to itself, or to the proxy.
        own = f"http://{connection.host}:{connection.port}/"
        fields = [(name, value.replace(own, "own:")) for name, value in response.getheaders() if name.lower() not in free]
        self.fields = sorted(fields, key=lambda field: field[0].lower())

    @staticmethod
    def decoded(body, coding):
        if coding == "gzip" and body:
            return gzip.decompress(body)
        if coding == "deflate" and body:
            return zlib.decompress(body)
        if coding == "br" and body:
            return brotlicffi.decompress(body)
        return body

    @staticmethod
    def neutral(body):
        """A body, without the Via of its request where it is an echo of that, and whether it is."""
        lines, echoes_via = [], False
        for line in [body] if body.startswith(b"{\n") else body.splitlines(keepends=True):
            try:
                value = json.loads(line)
            except ValueError:
                return body, False
            if isinstance(value, dict):
                headers = value.get("headers")
                echoes_via |= isinstance(headers, dict)
                (headers if isinstance(headers, dict) else {}).pop("Via", None)
                value = {key: "drawn" if key == "uuid" else value for key, value in value.items()}
            lines.append(value)
        return lines, echoes_via

    def differences(self, other):
        for what in ["line", "fields", "body"]:
            mine, others = getattr(self, what), getattr(other, what)
            if mine != others:
                yield f"{what}: direct {mine!r:.2000}, proxied {others!r:.2000}"


def main():
    name, tls_port, bundle, listener_port = sys.argv[1:]
    direct = Direct(name, int(tls_port), bundle)
    proxied = http.client.HTTPConnection("127.0.0.1", int(listener_port), timeout=TIMEOUT)
    count = equal = 0
    for method, target, fields, body in rows():
        count += 1
        one, other = [Answer(way, method, target, fields, body) for way in (direct, proxied)]
        found = list(one.differences(other))
        equal += not found
        for difference in found:
            print(f"{method} {target} {fields}: {difference}")
    print(f"{equal} of {count} are equal")
    raise SystemExit(0 if equal == count else 1)


main()
