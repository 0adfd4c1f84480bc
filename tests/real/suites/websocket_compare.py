"""Does the same with a WebSocket server twice, over verified TLS and through a fixed route, and says what differs.

    websocket_compare.py NAME TLS_PORT CA_BUNDLE LISTENER_PORT REFUSING_PORT

What is expected of each case stands beside it; REFUSING_PORT is a listener whose upstream is not believed. The last
line counts; exit 1 unless all cases end both ways as expected.
"""

import asyncio
import random
import ssl
import sys
import traceback

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

TIMEOUT = 30
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20]


def payload(size):
    return random.Random(size).randbytes(size)


class Way:
    """How the server is reached."""

    def __init__(self, url, **options):
        self.url = url
        self.options = {"max_size": None, "open_timeout": TIMEOUT, "proxy": None, **options}

    def connect(self, path, **options):
        return connect(self.url + path, **{**self.options, **options})


async def echo(way, message, **options):
    async with way.connect("/echo", **options) as connection:
        await connection.send(message)
        return await connection.recv()


async def text(way, size):
    sent = payload(size).hex()[:size]
    return await echo(way, sent) == sent


async def binary(way, size):
    return await echo(way, payload(size)) == payload(size)


async def uncompressed(way, size):
    return await echo(way, payload(size), compression=None) == payload(size)


async def fragments_out(way):
    return await echo(way, ["a", "", "b" * 70_000, "c"]) == "a" + "b" * 70_000 + "c"


async def fragments_in(way):
    async with way.connect("/fragments") as connection:
        one = [fragment async for fragment in connection.recv_streaming()]
        two = await connection.recv()
        return one, len(two)


async def ping_out(way):
    async with way.connect("/echo") as connection:
        waiter = await connection.ping(b"x" * 125)
        await connection.send("between")
        await waiter
        return await connection.recv()


async def ping_in(way):
    async with way.connect("/ping") as connection:
        return await connection.recv()


async def close_in(way, code, reason):
    async with way.connect(f"/close?code={code}&reason={reason}") as connection:
        await connection.wait_closed()
        return connection.close_code, connection.close_reason


async def close_out(way, code, reason):
    name = random.randbytes(8).hex()
    async with way.connect(f"/closed?name={name}") as connection:
        await connection.recv()
        await connection.close(code, reason)
    async with way.connect(f"/was_closed?name={name}") as connection:
        return await connection.recv()


async def gone_out(way):
    """A client that is gone without a word is no clean end for the server."""
    name = random.randbytes(8).hex()
    async with way.connect(f"/closed?name={name}") as connection:
        await connection.recv()
        connection.transport.abort()
    async with way.connect(f"/was_closed?name={name}") as connection:
        return await connection.recv()


async def gone_in(way):
    """A server that is gone without a word is no clean end for the client."""
    async with way.connect("/vanish") as connection:
        await connection.send("x")
        first = await connection.recv()
        try:
            await connection.recv()
        except ConnectionClosed:
            return first, connection.close_code


async def bad_frame(way, frame):
    """What breaks the protocol is the server's to refuse."""
    async with way.connect("/echo", compression=None) as connection:
        connection.transport.write(frame)
        await connection.wait_closed()
        return connection.close_code


async def subprotocol(way, offered):
    async with way.connect("/echo", subprotocols=offered) as connection:
        return connection.subprotocol


async def extensions(way, compression):
    async with way.connect("/echo", compression=compression) as connection:
        await connection.send("a" * 100_000)
        await connection.recv()
        return connection.response.headers.get("Sec-WebSocket-Extensions", "").split(";")[0]


async def refused(way, path):
    try:
        async with way.connect(path):
            return "it is open"
    except InvalidStatus as refusal:
        fields = refusal.response.headers
        names = ["WWW-Authenticate", "Sec-WebSocket-Version"]
        return refusal.response.status_code, [fields[name] for name in names if name in fields], refusal.response.body


async def parallel(way):
    async def one(n):
        async with way.connect("/echo") as connection:
            for m in range(10):
                await connection.send(payload(10_000 + n + m))
            return [await connection.recv() == payload(10_000 + n + m) for m in range(10)]

    return all(all(done) for done in await asyncio.gather(*(one(n) for n in range(20))))


async def both_ways_at_once(way):
    """Neither side waits for the other to read."""
    async with way.connect("/echo", compression=None) as connection:

        async def send():
            for n in range(64):
                await connection.send(payload(1 << 18))

        sending = asyncio.create_task(send())
        same = [await connection.recv() == payload(1 << 18) for n in range(64)]
        await sending
        return all(same)


def cases():
    for size in SIZES:
        yield text, (size,), True
        yield binary, (size,), True
    yield uncompressed, (16 << 20,), True
    yield fragments_out, (), True
    yield fragments_in, (), (["one ", "two ", "three", ""], 70_001)
    yield ping_out, (), "between"
    yield ping_in, (), "there"
    for code, reason in [(1000, ""), (1001, "away"), (1011, "oops"), (3000, "r" * 100), (4999, "ours")]:
        yield close_in, (code, reason), (code, reason)
        yield close_out, (code, reason), f"{code} {reason}"
    yield gone_in, (), ("x", 1006)
    yield gone_out, (), "1006 "
    yield bad_frame, (b"\x81\x81\0\0\0\0\xff",), 1007
    yield bad_frame, (b"\x83\x80\0\0\0\0",), 1002
    yield bad_frame, (b"\xf1\x80\0\0\0\0",), 1002
    yield bad_frame, (b"\x81\x01x",), 1002
    yield subprotocol, (["chat.v1", "chat.v2"],), "chat.v2"
    yield subprotocol, (["none.of.these"],), None
    yield subprotocol, (None,), None
    yield extensions, ("deflate",), "permessage-deflate"
    yield extensions, (None,), ""
    yield refused, ("/401",), (401, ["Basic"], b"who are you\n")
    yield refused, ("/426",), (426, ["8"], b"not like this\n")
    yield parallel, (), True
    yield both_ways_at_once, (), True


async def outcome(case, way, arguments):
    try:
        return await asyncio.wait_for(case(way, *arguments), TIMEOUT)
    except Exception:
        return traceback.format_exc()


async def main():
    name, tls_port, bundle, listener_port, refusing_port = sys.argv[1:]
    tls = {"ssl": ssl.create_default_context(cafile=bundle), "host": "127.0.0.1"}
    direct = Way(f"wss://{name}:{tls_port}", **tls)
    proxied = Way(f"ws://127.0.0.1:{listener_port}")
    count = well = 0
    for case, arguments, expected in cases():
        found = {kind: await outcome(case, way, arguments) for kind, way in [("direct", direct), ("proxied", proxied)]}
        count += 1
        well += all(value == expected for value in found.values())
        for kind, value in found.items():
            if value != expected:
                print(f"{case.__name__}{arguments!r:.80} {kind}: {value}; expected {expected!r}")
    count += 1
    value = await outcome(refused, Way(f"ws://127.0.0.1:{refusing_port}"), ("/echo",))
    if value[0] == 403 and b": name_mismatch (event " in value[2]:
        well += 1
    else:
        print(f"a server that is not believed: {value}")
    print(f"{well} of {count} end as expected")
    raise SystemExit(0 if well == count else 1)


asyncio.run(main())
