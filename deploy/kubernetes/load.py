#!/usr/bin/env python3
"""Requests through several proxies, as clients of a Service make them, and what became of each.

    load.py ENDPOINTS URL REPORT

Eight clients keep their connections. For each new one they take an endpoint of the file ENDPOINTS at random (one
`ADDRESS:PORT` a line, read again each time), as a node's rules do. A request whose connection was closed before a byte
of the response is made again on a new connection, as HTTP allows for GET (RFC 9110, section 9.2.2), and counted as
`retried`; one that gets no whole response of status 200 is `lost`. Ends at SIGTERM, and writes JSON to REPORT.
"""

import asyncio
import collections
import json
import random
import signal
import sys
import urllib.parse

CLIENTS = 8
TRIES = 3


class Closed(Exception):
    """The connection ended before a byte of the response."""


async def respond(reader):
    """The status of a whole response."""
    head = b""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        raise Closed from error
    except ConnectionError as error:
        raise Closed from error
    lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    await reader.readexactly(int(fields["content-length"]))
    return int(lines[0].split()[1]), fields.get("connection", "").lower() == "close"


async def client(endpoints, url, ended, counts, lost):
    host = urllib.parse.urlsplit(url).netloc
    request = f"GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    connection = None
    while not ended.is_set():
        counts["requests"] += 1
        for attempt in range(TRIES):
            endpoint = connection[2] if connection else None
            try:
                if connection is None:
                    with open(endpoints, encoding="ascii") as file:
                        endpoint = random.choice(file.read().split())
                    address, port = endpoint.rsplit(":", 1)
                    connection = (*await asyncio.open_connection(address, int(port)), endpoint)
                reader, writer, _ = connection
                writer.write(request)
                status, closes = await asyncio.wait_for(respond(reader), 20)
                counts[f"on {endpoint}"] += 1
                if closes:
                    writer.close()
                    connection = None
                if status != 200:
                    lost.append((endpoint, f"status {status}"))
                break
            except (OSError, Closed, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
                is_over = not isinstance(error, (Closed, ConnectionRefusedError))
                if connection:
                    connection[1].close()
                connection = None
                if is_over or attempt + 1 == TRIES:
                    lost.append((endpoint, repr(error)))
                    break
                counts["retried"] += 1
                counts[f"retried after {endpoint}"] += 1


async def main(endpoints, url, report):
    ended, counts, lost = asyncio.Event(), collections.Counter(), []
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await asyncio.gather(*(client(endpoints, url, ended, counts, lost) for _ in range(CLIENTS)))
    with open(report, "w", encoding="utf-8") as file:
        json.dump({**counts, "lost": lost}, file, indent=1, sort_keys=True)


asyncio.run(main(*sys.argv[1:]))
