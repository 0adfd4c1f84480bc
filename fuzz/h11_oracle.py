"""Holds readings of HTTP/1 against h11, a reader that shares no code with the program.

Reads lines of JSON, as the targets `http1_request` and `http1_response` write them: an input, and the messages that the
program accepted in it. Whatever it accepts, h11 takes for the same message that ends at the same byte, or `LAXITIES`
says why not. Prints what was compared; ends with 1 at a difference.
"""

import collections
import itertools
import json
import re
import sys

import h11

# Where the program takes more than h11: the error of h11, and whether the message has what it is about.
LAXITIES = {
    "a target passes with bytes above 0x7f": lambda message, error: message.is_request
    and error.startswith("illegal request line")
    and not message.line[1].isascii(),
    "trailer fields about framing are dropped, whatever they say": lambda message, error: any(
        name in message.raw.lower() for name in (b"\ncontent-length", b"\ntransfer-encoding")
    )
    and message.is_chunked
    and error
    in (
        "bad Content-Length",
        "conflicting Content-Length headers",
        "multiple Transfer-Encoding headers",
        "Only Transfer-Encoding: chunked is supported",
    ),
}


class Message:
    """What the program understood."""

    def __init__(self, side, raw, said):
        self.side = side
        self.is_request = side == "requests"
        # Empty lines before a request are ignored; h11 does not.
        self.raw = raw[said["start"] :].lstrip(b"\r\n") if self.is_request else raw[said["start"] :]
        self.behind = raw[said["behind"] :]
        self.line = said["line"]
        self.fields = plain((name.encode(), bytes.fromhex(value)) for name, value in said["fields"])
        self.is_chunked = any(name.lower() == "transfer-encoding" for name, _ in said["fields"])
        self.content = bytes.fromhex(said["content"])
        self.end = said["end"]

    def with_one_host(self):
        """h11 wants one in every request; the program looks for it where it reads the target."""
        first, rest = self.raw.split(b"\n", 1)
        if not any(name == b"host" for name, _ in self.fields):
            self.raw = first + b"\nHost: a\r\n" + rest
            self.fields.insert(0, (b"host", b"a"))
            return
        end = re.search(rb"\n\r?\n", self.raw).start()
        hosts = itertools.count()
        others = re.sub(rb"(?im)^host(?=:)", lambda name: b"xost" if next(hosts) else name[0], self.raw[:end])
        self.raw = others + self.raw[end:]
        hosts = itertools.count()
        self.fields = [(b"xost" if name == b"host" and next(hosts) else name, value) for name, value in self.fields]


def plain(fields):
    """Without the fields that both sides write in their own way, and with one space for each run of white space."""
    kept = ((name.lower(), b" ".join(value.split())) for name, value in fields)
    return [field for field in kept if field[0] not in (b"content-length", b"transfer-encoding")]


def connection(message):
    if message.is_request:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    made = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    method = "HEAD" if message.side == "responses to HEAD" else "GET"
    fields = [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "a")]
    made.send(h11.Request(method=method, target="/", headers=fields))
    made.send(h11.EndOfMessage())
    return made


def difference(message):
    """None, or in what h11 differs. Its errors are raised."""
    try:
        return difference_as_it_is(message)
    except h11.RemoteProtocolError as error:
        if str(error) not in ("Missing mandatory Host: header", "Found multiple Host: headers"):
            raise
    message.with_one_host()
    return difference_as_it_is(message)


def difference_as_it_is(message):
    reader = connection(message)
    reader.receive_data(message.raw)
    content, head = b"", None
    while True:
        try:
            event = reader.next_event()
        except h11.RemoteProtocolError as error:
            if head is None or message.end == "whole":
                raise
            return ending(message, head, content, "refused", str(error))
        if event is h11.NEED_DATA:
            reader.receive_data(b"")
        elif isinstance(event, (h11.Request, h11.Response, h11.InformationalResponse)):
            head = event
            if isinstance(event, h11.InformationalResponse):
                return ending(message, head, b"", "whole", reader.trailing_data[0])
        elif isinstance(event, h11.Data):
            content += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return ending(message, head, content, "whole", reader.trailing_data[0])
        else:
            return f"h11 gives {event!r}"


def ending(message, head, content, end, behind):
    if message.is_request:
        line = [head.method.decode(), head.target.decode("latin-1")]
    else:
        line = [str(head.status_code), ""]
    if line != message.line:
        return f"the first line is {line}, not {message.line}"
    if plain(head.headers) != message.fields:
        return f"the fields are {plain(head.headers)}, not {message.fields}"
    if message.end == "refused":
        return None
    if (end == "whole") != (message.end == "whole"):
        return f"the end is {end} ({behind}), not {message.end}"
    if content != message.content:
        return f"the content is {content}, not {message.content}"
    if end == "whole" and behind != message.behind:
        return f"{behind} is left behind it, not {message.behind}"
    return None


def main():
    compared, differences = collections.Counter(), []
    for line in sys.stdin:
        reading = json.loads(line)
        raw = bytes.fromhex(reading["input"])
        for said in reading["messages"]:
            message = Message(reading["side"], raw, said)
            try:
                found = difference(message)
            except h11.RemoteProtocolError as error:
                excuses = (why for why, holds in LAXITIES.items() if holds(message, str(error)))
                excuse = next(excuses, None)
                if excuse is not None:
                    compared[excuse] += 1
                    continue
                found = f"h11 refuses it: {error}"
            compared[reading["side"]] += 1
            if found is not None:
                differences.append((message, found))
    for what, count in compared.most_common():
        print(f"h11: {count:9} {what}")
    for message, found in differences[:10]:
        print(f"h11: DIFFERENT: {message.side} {message.raw!r}\n    {found}")
    if differences:
        sys.exit(f"h11: {len(differences)} differences")


main()
