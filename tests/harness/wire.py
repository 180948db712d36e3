"""A proxy that knows where Postgres' messages begin and end, and cuts jobqd's work connection at a chosen one."""

import struct

from faultproxy import FaultProxy

# Where an answer is complete, and where a request is: the server's ReadyForQuery and CommandComplete, Execute and Sync.
ENDS = {"up": "ES", "down": "ZC"}


class Stream:
    """One direction of one connection, message by message."""

    def __init__(self, typed):
        self.typed = typed  # the client's first message has no type
        self.head = b""
        self.left = 0  # of the current message, behind its head
        self.kind = ""

    def split(self, data):
        """Yields (kind, position in data where its head ends, length of its body), for each head that ends here."""
        at = 0
        while at < len(data):
            if self.left:
                step = min(self.left, len(data) - at)
                self.left -= step
                at += step
                continue
            size = 5 if self.typed else 4
            piece = data[at:at + size - len(self.head)]
            self.head += piece
            at += len(piece)
            if len(self.head) == size:
                self.kind = chr(self.head[0]) if self.typed else "startup"
                self.left = struct.unpack("!I", self.head[-4:])[0] - 4
                self.head = b""
                self.typed = True
                yield self.kind, at, self.left


class Plan:
    """Cut at the nth message (of a run of one kind, such as rows, the first one counts) that goes `way`: in its middle;
    or, `behind`, after it, and then only those count that complete something."""

    def __init__(self, way, nth, behind=False, rst=False):
        self.way = way
        self.nth = nth
        self.behind = behind
        self.rst = rst
        self.last = ""  # the kind of the previous message
        self.left = None  # bytes until the cut, once they are known
        self.kind = ""  # the kind of the message that it will be cut at
        self.cut = ""  # the kind of the message that it was cut at; "": not yet

    def look(self, stream, data):
        """How much of the data may pass, when that is not all of it or the cut comes behind it; else None."""
        if self.left is None:
            # The whole of it even if the cut is known, for the stream's sake.
            for kind, at, body in stream.split(data):
                new, self.last = kind != self.last, kind
                if self.left is not None or not new or (self.behind and kind not in ENDS[self.way]):
                    continue
                self.nth -= 1
                if self.nth == 0:
                    self.left = at + (body if self.behind else body // 2 if body else -1)
                    self.kind = kind
            if self.left is None:
                return None
        if self.left > len(data):
            self.left -= len(data)
            return None
        self.cut = self.kind
        return self.left


class WireProxy(FaultProxy):
    """For connections without TLS. plan: what shall become of the next work connection; planned: what is to become, or
    became, of the last one."""

    def __init__(self, to):
        super().__init__(to)
        self.plan = None
        self.planned = None

    def account(self, link, data, way):
        if not hasattr(link, "streams"):
            link.streams = {"up": Stream(typed=False), "down": Stream(typed=True)}
            link.works = b"application_name\0jobqd work\0" in data
            link.plan = None
            if link.works and self.plan is not None:
                self.planned = link.plan = self.plan
                self.plan = None
        data, last = super().account(link, data, way)
        plan = link.plan
        if plan is None or plan.way != way or not data:
            return data, last
        end = plan.look(link.streams[way], data)
        return (data, last) if end is None else (data[:end], True)

    async def cut_at(self, link):
        if link.plan is None:
            await super().cut_at(link)
            return
        link.end(link.plan.rst)
        self.links.discard(link)

    def cut_work(self, plan):
        """Ends the work connection there is, and sets the plan of the next one."""
        self.call(self._cut_work(plan))

    async def _cut_work(self, plan):
        self.plan = plan
        for link in [link for link in self.links if getattr(link, "works", False)]:
            link.end(rst=False)
            self.links.discard(link)
