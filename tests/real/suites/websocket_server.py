"""A WebSocket server behind TLS on a free port of loopback: says `listening PORT`, and ends when its stdin does.

    websocket_server.py CHAIN KEY

What a connection does is in its path: see `paths`.
"""

import asyncio
import http
import ssl
import sys
import urllib.parse

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

# How each connection to /closed/NAME was closed by its client.
closed = {}


async def echo(connection, query):
    async for message in connection:
        await connection.send(message)


async def fragments(connection, query):
    await connection.send(["one ", "two ", "three"])
    await connection.send([b"\0" * 70_000, b"", b"\1"])


async def ping(connection, query):
    await (await connection.ping(b"are you there"))
    await connection.send("there")


async def close(connection, query):
    await connection.close(int(query["code"]), query["reason"])


async def is_closed(connection, query):
    name = query["name"]
    closed[name] = asyncio.get_running_loop().create_future()
    await connection.send("ready")
    await connection.wait_closed()
    closed[name].set_result(f"{connection.close_code} {connection.close_reason}")


async def was_closed(connection, query):
    await connection.send(await closed[query["name"]])


async def vanish(connection, query):
    async for message in connection:
        await connection.send(message)
        connection.transport.abort()


paths = {
    "/echo": echo,
    "/fragments": fragments,
    "/ping": ping,
    "/close": close,
    "/closed": is_closed,
    "/was_closed": was_closed,
    "/vanish": vanish,
}


async def handle(connection):
    url = urllib.parse.urlsplit(connection.request.path)
    try:
        await paths[url.path](connection, dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True)))
    except ConnectionClosed:
        pass


def select(connection, offered):
    """The best of those offered; none is as good."""
    return next((known for known in ["chat.v2", "chat.v1"] if known in offered), None)


def refuse(connection, request):
    """Answers some requests without a switch to WebSocket."""
    if request.path == "/401":
        response = connection.respond(http.HTTPStatus.UNAUTHORIZED, "who are you\n")
        response.headers["WWW-Authenticate"] = "Basic"
        return response
    if request.path == "/426":
        response = connection.respond(http.HTTPStatus.UPGRADE_REQUIRED, "not like this\n")
        response.headers["Sec-WebSocket-Version"] = "8"
        return response
    return None


async def main():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*sys.argv[1:])
    options = {"select_subprotocol": select, "process_request": refuse, "max_size": None}
    async with serve(handle, "127.0.0.1", 0, ssl=tls, **options) as server:
        print("listening", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())
