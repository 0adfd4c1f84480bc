"""httpbin behind waitress on a free port of loopback: says `listening PORT`, and ends when its stdin does."""

import os
import sys
import threading

import httpbin
import waitress


def main():
    server = waitress.create_server(httpbin.app, listen="127.0.0.1:0", threads=16)
    print("listening", server.effective_port, flush=True)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    server.run()


def end_with_stdin():
    sys.stdin.read()
    os._exit(0)


main()
