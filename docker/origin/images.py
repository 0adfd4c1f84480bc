#!/usr/bin/env python3
"""An image server with the v1 API of Glance, as much of it as glance-replicator reads, behind TLS.

    images.py --cert chain-and-key.pem [--key key.pem] [--listen 0.0.0.0:9292]
    images.py --sha256

It has one active image of 1 MiB whose bytes are the same everywhere, in pages of one: the second page is empty,
as the replicator expects. Every request is a line on stderr that begins with `request`, every handshake that came
to nothing one that begins with `no TLS`: the log shows whether a byte of HTTP arrived.
"""

import argparse
import hashlib
import http.server
import json
import socketserver
import ssl
import sys
import urllib.parse

IMAGE_ID = "6f1c5f0e-8a5e-4f5e-9d5b-2f4a7c1e9b10"
CONTENT = b"".join(hashlib.sha256(b"vouchsafe %d" % n).digest() for n in range(32768))
IMAGE = {
    "id": IMAGE_ID,
    "name": "small",
    "status": "active",
    "size": len(CONTENT),
    "checksum": hashlib.md5(CONTENT).hexdigest(),
    "disk_format": "raw",
    "container_format": "bare",
    "is_public": True,
    "protected": False,
    "deleted": False,
    "min_disk": 0,
    "min_ram": 0,
    "owner": "demo",
    "created_at": "2012-11-29T00:00:00.000000",
    "updated_at": "2012-11-29T00:00:00.000000",
    "deleted_at": None,
    "properties": {"origin": "images.py"},
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "images.py"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/v1/images/detail":
            marker = urllib.parse.parse_qs(url.query).get("marker")
            page = json.dumps({"images": [] if marker else [IMAGE]}).encode()
            self.answer(200, "application/json", page)
        elif url.path == "/v1/images/" + IMAGE_ID:
            self.answer(200, "application/octet-stream", CONTENT, metadata=IMAGE)
        else:
            self.answer(404, "text/plain", b"no such image\n")

    do_HEAD = do_GET

    def answer(self, status, kind, body, metadata=None):
        self.send_response(status)
        for key, value in (metadata or {}).items():
            if key == "properties":
                for name, text in value.items():
                    self.send_header("X-Image-Meta-Property-" + name.title(), text)
            else:
                self.send_header("X-Image-Meta-" + key.title(), "" if value is None else str(value))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        self.log_message("%s %s", code, self.requestline)

    def log_message(self, form, *arguments):
        say("request from %s: " % self.client_address[0] + form % arguments)

    def log_error(self, form, *arguments):
        say("broken off by %s: " % self.client_address[0] + form % arguments)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, address, context):
        super().__init__(address, Handler)
        self.context = context

    def finish_request(self, request, client_address):
        # In the connection's own thread: a client that stalls or refuses holds up no other.
        request.settimeout(60)
        try:
            stream = self.context.wrap_socket(request, server_side=True)
        except OSError as error:
            say("no TLS with %s: %s" % (client_address[0], error))
            return
        with stream:
            super().finish_request(stream, client_address)

    def handle_error(self, request, client_address):
        say("broken off by %s: %s" % (client_address[0], sys.exc_info()[1]))

    def server_bind(self):
        # HTTPServer asks the resolver for our own name here, which nobody needs.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


def say(line):
    print(line, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cert", help="PEM: the chain to present, and the key unless --key names it")
    parser.add_argument("--key", help="PEM: the private key")
    parser.add_argument("--listen", default="0.0.0.0:9292", metavar="ADDRESS:PORT")
    parser.add_argument("--sha256", action="store_true", help="print the image's digest and end")
    arguments = parser.parse_args()
    if arguments.sha256:
        print(hashlib.sha256(CONTENT).hexdigest())
        return
    if not arguments.cert:
        parser.error("--cert is needed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.cert, arguments.key)
    host, _, port = arguments.listen.rpartition(":")
    with Server((host, int(port)), context) as server:
        say("listening %s with %s" % (arguments.listen, arguments.cert))
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
