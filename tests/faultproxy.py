"""A network that can be made to fail: a proxy between a client and a server, over TCP or unix sockets.

    with FaultProxy("/run/pg/.s.PGSQL.5432") as proxy:
        connect(f"host=127.0.0.1 port={proxy.port}")
        proxy.stall()

It forwards bytes and knows no protocol. What can be done to it, at any time and from any thread:

    delay(ms)             each piece of data waits so long, both ways (0: none)
    stall(), resume()     nothing goes through, either way, and nobody is told; new connections are accepted in silence
    half_open()           the server's ends are closed; the clients see nothing, and nobody answers them
    cut(rst=True)         all connections end now, with a reset, or in good order
    cut_after(n, way)     the same once n more bytes went "down" (to the client), "up" or "both" ways; happens once
    refuse(), accept()    nobody listens on the port; somebody does again
    counts()              {"connections": accepted so far, "up": bytes, "down": bytes}

As a program it does the same for tests in other languages:

    python3 faultproxy.py TO [LISTEN]     TO, LISTEN: HOST:PORT or a socket's path; LISTEN by default 127.0.0.1:0

It prints its port (0 for a path), then reads the commands above from stdin, one a line (`cut_after 17 down`), and
answers each with `ok …` or `error …`. At the end of stdin it exits.
"""

import asyncio
import json
import socket
import struct
import sys
import threading

CHUNK = 65536


def split_address(text):
    """("unix", path) or ("tcp", (host, port))"""
    if "/" in text:
        return "unix", text
    host, port = text.rsplit(":", 1)
    return "tcp", (host, int(port))


class Link:
    """One client's connection and ours to the server for it."""

    def __init__(self, proxy, client):
        self.proxy = proxy
        self.client = client
        self.server = None
        self.half_open = False

    async def run(self):
        try:
            await self.proxy.open_gate.wait()
            self.server = await self.proxy.connect()
            await asyncio.gather(self.pump(self.client, self.server, "up"), self.pump(self.server, self.client, "down"))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            if not self.half_open:
                self.end(rst=False)

    async def pump(self, source, sink, way):
        """Until either end is closed; the other one is closed then."""
        proxy = self.proxy
        while True:
            await proxy.open_gate.wait()
            data = await source[0].read(CHUNK)
            if proxy.delay_s:
                await asyncio.sleep(proxy.delay_s)
            await proxy.open_gate.wait()
            if self.half_open:
                return
            data, last = proxy.account(self, data, way)
            if data:
                sink[1].write(data)
                await sink[1].drain()
            if last:
                await proxy.cut_at(self)
                return
            if not data:
                sink[1].close()
                return

    def end(self, rst):
        for stream in (self.client, self.server):
            if stream is None:
                continue
            if rst:
                sock = stream[1].get_extra_info("socket")
                if sock is not None and sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream[1].transport.abort()
            else:
                stream[1].close()

    def open_half(self):
        self.half_open = True
        if self.server is not None:
            self.server[1].transport.abort()


class FaultProxy:
    def __init__(self, to, listen="127.0.0.1:0"):
        self.to = split_address(to)
        self.address = split_address(listen)
        self.port = 0
        self.delay_s = 0.0
        self.links = set()
        self.bytes = {"up": 0, "down": 0}
        self.accepted = 0
        self.cut_left = None  # bytes until the cut
        self.cut_way = "down"
        self.cut_rst = False
        self.server = None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.call(self.start())

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    async def start(self):
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        await self.listen()

    async def listen(self):
        if self.server is not None:
            return
        kind, where = self.address
        if kind == "unix":
            self.server = await asyncio.start_unix_server(self.on_client, where)
        else:
            self.server = await asyncio.start_server(self.on_client, *where, reuse_address=True)
            self.port = self.server.sockets[0].getsockname()[1]
            self.address = ("tcp", (where[0], self.port))

    async def connect(self):
        kind, where = self.to
        if kind == "unix":
            return await asyncio.open_unix_connection(where)
        return await asyncio.open_connection(*where)

    async def on_client(self, reader, writer):
        self.accepted += 1
        link = Link(self, (reader, writer))
        self.links.add(link)
        try:
            await link.run()
        finally:
            if not link.half_open:
                self.links.discard(link)

    def account(self, link, data, way):
        """Counts what is about to be forwarded. Returns what may still go, and whether the cut comes then."""
        last = False
        if self.cut_left is not None and self.cut_way in (way, "both") and data:
            data = data[:self.cut_left]
            self.cut_left -= len(data)
            last = self.cut_left == 0
            if last:
                self.cut_left = None
        self.bytes[way] += len(data)
        return data, last

    async def cut_at(self, link):
        """The cut that account() announced has come, on this link."""
        await self.cut_all(self.cut_rst)

    async def cut_all(self, rst):
        for link in list(self.links):
            link.end(rst)
            self.links.discard(link)

    # --- what can be done to it ---

    def delay(self, ms):
        self.delay_s = ms / 1000

    def stall(self):
        self.call(self._gate(False))

    def resume(self):
        self.call(self._gate(True))

    async def _gate(self, is_open):
        if is_open:
            self.open_gate.set()
        else:
            self.open_gate.clear()

    def half_open(self):
        self.call(self._half_open())

    async def _half_open(self):
        for link in self.links:
            link.open_half()

    def cut(self, rst=True):
        self.call(self.cut_all(rst))

    def cut_after(self, n, way="down", rst=False):
        if way not in ("up", "down", "both") or n < 1:
            raise ValueError('cut_after takes a number of bytes, at least 1, and "up", "down" or "both"')
        self.call(self._cut_after(n, way, rst))

    async def _cut_after(self, n, way, rst):
        self.cut_left, self.cut_way, self.cut_rst = n, way, rst

    def refuse(self):
        self.call(self._refuse())

    async def _refuse(self):
        if self.server is not None:
            self.server.close()
            self.server = None

    def accept(self):
        self.call(self.listen())

    def counts(self):
        return {"connections": self.accepted, **self.bytes}

    async def _close(self):
        await self._refuse()
        await self.cut_all(rst=False)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self):
        self.call(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(60)


def obey(proxy, words):
    """One command of stdin; returns what to answer."""
    name, *arguments = words
    if name in ("stall", "resume", "half_open", "refuse", "accept"):
        getattr(proxy, name)()
    elif name == "delay":
        proxy.delay(float(arguments[0]))
    elif name == "cut":
        proxy.cut(rst="fin" not in arguments)
    elif name == "cut_after":
        proxy.cut_after(int(arguments[0]), *arguments[1:2], rst="rst" in arguments)
    elif name == "counts":
        return json.dumps(proxy.counts())
    else:
        raise ValueError(f"unknown command {name}")
    return ""


def main(arguments):
    if len(arguments) not in (1, 2):
        sys.exit("usage: faultproxy.py TO [LISTEN]   (each HOST:PORT or a socket's path)")
    with FaultProxy(*arguments) as proxy:
        print(proxy.port, flush=True)
        for line in sys.stdin:
            try:
                print("ok", obey(proxy, line.split()), flush=True)
            except (ValueError, IndexError, OSError) as error:
                print("error", error, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
