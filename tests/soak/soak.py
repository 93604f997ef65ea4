"""The soak itself: an origin, clients that check every byte, clients that mean harm, faults, and a table.

Knows nothing of Larder but its configuration, its admin listener and HTTP/1.1. Every request's answer is a
function of its path, so that a mixed-up, cut or stale-beyond-bounds body is noticed. Runs on the standard
library alone, on loopback alone.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import re
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import socket
import zlib

HOT = 200
COLD = 1_000_000
CLIENTS = 24
HOSTILE = 16
BUDGET_MIB = 64
# Of what is hot, so much may be gone from both tiers when the origin falls ill: memory gives up what it likes, and
# Redis was ill just before. What made memory's hits depend on the origin or on Redis would show in far more of it.
GONE = HOT // 50


# --- the origin: a process of its own, so that it can be stopped and killed -------------------------------

def body_of(path):
    """What the origin answers to a path: some bytes that only this path has."""
    seed = zlib.crc32(path.encode())
    size = 200 + seed % 12_000
    if path.startswith("/big/"):
        size = 600_000 + seed % 3_000_000
    line = f"{path} {seed:08x} ".encode()
    return (line * (size // len(line) + 1))[:size]


async def origin_connection(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            first, *fields = head.decode("latin-1").split("\r\n")
            method, path, _ = first.split(" ", 2)
            fields = {n.lower(): v.strip() for n, _, v in (f.partition(":") for f in fields if f)}
            sent = await request_body(reader, fields)
            await origin_answer(method, path, fields, sent, writer)
    except (asyncio.IncompleteReadError, ConnectionError, ValueError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def request_body(reader, fields):
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"]))
    body = b""
    if "chunked" in fields.get("transfer-encoding", ""):
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return body


async def origin_answer(method, path, fields, sent, writer):
    body, extra = body_of(path), ""
    if path.startswith(("/hot/", "/big/")):
        extra = "Cache-Control: max-age=300\r\n"
    elif path.startswith("/brief/"):
        tag = f'"{zlib.crc32(path.encode()):08x}"'
        extra = f"Cache-Control: max-age=1\r\nETag: {tag}\r\n"
        if fields.get("if-none-match") == tag:
            writer.write(f"HTTP/1.1 304 Not Modified\r\n{extra}\r\n".encode())
            return await writer.drain()
    elif path.startswith("/cold/"):
        extra = "Cache-Control: max-age=60\r\n"
    elif path.startswith("/slow/"):
        extra = "Cache-Control: no-store\r\n"
        await asyncio.sleep(0.2)
    elif path.startswith("/upload/"):
        body, extra = str(zlib.crc32(sent)).encode(), "Cache-Control: no-store\r\n"
    else:
        extra = "Cache-Control: no-store\r\n"
    if path.startswith("/cut/"):
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nCache-Control: max-age=60\r\n\r\n"
        writer.write(head.encode() + body[: len(body) // 2])
        await writer.drain()
        raise ConnectionResetError
    if zlib.crc32(path.encode()) % 3 == 0 and method != "HEAD":
        writer.write(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{extra}\r\n".encode())
        for at in range(0, len(body), 9000):
            piece = body[at : at + 9000]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
    else:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode())
        if method != "HEAD":
            writer.write(body)
    await writer.drain()


async def origin(port):
    server = await asyncio.start_server(origin_connection, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


# --- clients ------------------------------------------------------------------------------------------------

class Soak:
    def __init__(self, args):
        self.args = args
        self.over = False
        self.faulty_until = 0.0
        self.counts = collections.Counter()
        self.failures = collections.Counter()
        self.examples = []
        self.gone = collections.defaultdict(set)
        self.samples = []
        self.latency = []
        self.dice = random.Random(7)

    def excused(self, began):
        """Whether the origin was ill at some time of a request that began then."""
        return began < self.faulty_until

    def failed(self, kind, path, what):
        self.failures[kind] += 1
        if len(self.examples) < 20:
            self.examples.append(f"{path}: {what}")

    async def client(self, seed):
        dice = random.Random(seed)
        stream = None
        while not self.over:
            kind, path = self.choose(dice)
            began = time.monotonic()
            try:
                stream = stream or await asyncio.open_connection("127.0.0.1", self.proxy, limit=1 << 20)
                status, body, keep = await asyncio.wait_for(self.ask(stream, dice, kind, path), 30)
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError) as why:
                status, body, keep = None, repr(why), False
            self.judge(kind, path, began, status, body)
            if not keep and stream:
                stream[1].close()
                stream = None
            await asyncio.sleep(dice.random() * 0.01)
        if stream:
            stream[1].close()

    def choose(self, dice):
        kind = dice.choices(
            ["hot", "brief", "cold", "slow", "pass", "upload", "big", "cut", "head"],
            [50, 15, 12, 3, 8, 4, 1, 1, 4],
        )[0]
        if kind in ("hot", "head"):
            return kind, f"/hot/{dice.randrange(HOT)}"
        if kind == "big":
            return kind, f"/big/{dice.randrange(60)}"
        if kind == "brief":
            return kind, f"/brief/{dice.randrange(50)}"
        return kind, f"/{kind}/{dice.randrange(COLD)}"

    async def ask(self, stream, dice, kind, path):
        reader, writer = stream
        method = {"upload": "POST", "head": "HEAD"}.get(kind, "GET")
        head = f"{method} {path} HTTP/1.1\r\nHost: soak.test\r\n"
        if kind == "upload":
            sent = dice.randbytes(dice.randrange(200_000))
            self.sent = zlib.crc32(sent)
            head += f"Content-Length: {len(sent)}\r\n\r\n"
            writer.write(head.encode() + sent)
            expected = str(zlib.crc32(sent)).encode()
        else:
            writer.write((head + "\r\n").encode())
            expected = None
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(head.split(" ", 2)[1])
        fields = {n.lower(): v.strip() for n, _, v in (f.partition(":") for f in head.split("\r\n")[1:])}
        body = b"" if method == "HEAD" else await request_body(reader, fields)
        if expected is not None and status == 200 and body != expected:
            return status, "another upload's answer", False
        keep = fields.get("connection", "").lower() != "close"
        return status, (body_of(path) if kind in ("upload", "head") and status == 200 else body), keep

    def judge(self, kind, path, began, status, body):
        self.counts[kind] += 1
        if status == 200:
            self.latency.append((kind, time.monotonic() - began))
            if body != body_of(path):
                self.failed("wrong body", path, f"{len(body)} bytes, {body[:60]!r}")
            elif kind == "cut":
                self.failed("passed off as whole", path, "a body that the origin cut")
        elif kind == "cut":
            self.counts["cut, as it should"] += 1
        elif self.excused(began) and (status is None or status >= 500):
            # What is stored and fresh needs no origin. Not all that is hot has been asked for yet at first.
            if kind in ("hot", "head") and began > self.warm:
                self.counts["hot during a fault"] += 1
                if path in self.seen_hot:
                    gone = self.gone[self.counts["origin stopped"] + self.counts["origin killed"]]
                    gone.add(path)
                    if len(gone) > GONE:
                        self.failed("stored, and yet failed in a fault", path, f"{status} {body[:80]!r}")
            else:
                self.counts["failed with the origin"] += 1
        else:
            self.failed("failed", path, f"{status} {body[:200]!r}")
        if kind == "hot" and status == 200:
            self.seen_hot[path] = time.monotonic()

    # --- those who mean harm --------------------------------------------------------------------------------

    async def hostile(self, seed):
        dice = random.Random(seed * 1000)
        while not self.over:
            kind = dice.choice(["slow head", "silent", "slow reader", "garbage", "large head", "reset", "half",
                                "h2 silent", "slow body", "letter", "pipeline"])
            self.counts["hostile"] += 1
            try:
                reader, writer = await asyncio.wait_for(
                    asyncio.open_connection("127.0.0.1", self.proxy, limit=1 << 16), 10)
            except (OSError, asyncio.TimeoutError):
                await asyncio.sleep(0.5)
                continue
            try:
                await asyncio.wait_for(self.harm(kind, dice, reader, writer), 20)
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, asyncio.LimitOverrunError):
                pass
            finally:
                writer.close()
            await asyncio.sleep(dice.random() * 0.2)

    async def harm(self, kind, dice, reader, writer):
        request = f"GET /cold/{dice.randrange(COLD)} HTTP/1.1\r\nHost: soak.test\r\n".encode()
        if kind == "slow head":
            for byte in request:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.3)
        elif kind == "silent":
            await asyncio.sleep(10)
        elif kind == "slow reader":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            writer.write(f"GET /big/{dice.randrange(60)} HTTP/1.1\r\nHost: soak.test\r\n\r\n".encode())
            writer.transport.pause_reading()
            await asyncio.sleep(8)
        elif kind == "garbage":
            writer.write(dice.randbytes(4000))
            await reader.read(1000)
        elif kind == "large head":
            writer.write(request + b"X: " + b"y" * 100_000)
            await reader.read(1000)
        elif kind == "reset":
            writer.write(request + b"\r\n")
            await asyncio.sleep(dice.random() * 0.02)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif kind == "half":
            writer.write(request[: dice.randrange(len(request))])
            await writer.drain()
        elif kind == "h2 silent":
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            await asyncio.sleep(8)
        elif kind == "slow body":
            writer.write(b"POST /upload/1 HTTP/1.1\r\nHost: soak.test\r\nContent-Length: 9999\r\n\r\n")
            for _ in range(12):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(1)
        elif kind == "letter":
            writer.write(b"P")
            await asyncio.sleep(5)
        elif kind == "pipeline":
            writer.write((request + b"\r\n") * 50)
            await reader.read(20_000)

    # --- faults, reloads, purges ----------------------------------------------------------------------------

    async def faults(self):
        while not self.over:
            for fault in (self.origin_stops, self.redis_stops, self.origin_dies, self.redis_dies):
                await self.pause(8)
                if self.over:
                    return
                await fault()

    async def pause(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.over:
            await asyncio.sleep(0.2)

    async def origin_stops(self):
        self.counts["origin stopped"] += 1
        self.faulty_until = float("inf")
        self.origin.send_signal(signal.SIGSTOP)
        await self.pause(4)
        self.origin.send_signal(signal.SIGCONT)
        # Those who began just before may have met it, too.
        await self.pause(2)
        self.faulty_until = time.monotonic()

    async def origin_dies(self):
        self.counts["origin killed"] += 1
        self.faulty_until = float("inf")
        self.origin.kill()
        self.origin.wait()
        await self.pause(2)
        self.start_origin()
        await self.pause(2)
        self.faulty_until = time.monotonic()

    async def redis_stops(self):
        """Redis can fail no request: nothing is excused."""
        if self.redis:
            self.counts["redis stopped"] += 1
            self.redis.send_signal(signal.SIGSTOP)
            await self.pause(3)
            self.redis.send_signal(signal.SIGCONT)

    async def redis_dies(self):
        if self.redis:
            self.counts["redis killed"] += 1
            self.redis.kill()
            self.redis.wait()
            await self.pause(2)
            self.start_redis()

    async def reloads(self):
        turn = 0
        while not self.over:
            await self.pause(3)
            turn += 1
            bad = turn % 5 == 0
            self.write_config(turn, bad)
            if turn % 2:
                self.larder.send_signal(signal.SIGHUP)
                self.counts["reloads by SIGHUP"] += 1
                continue
            done = await asyncio.create_subprocess_exec(
                self.args.larder, "reload", "-c", self.config,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
            code = await done.wait()
            self.counts["reloads by command"] += 1
            if code != (78 if bad else 0):
                self.failed("reload", "larder reload", f"exit code {code}, bad file: {bad}")

    async def purges(self):
        dice = random.Random(3)
        while not self.over:
            await self.pause(1)
            path = f"/hot/{dice.randrange(HOT)}"
            # It is not stored any more: during a fault of the origin it may fail.
            self.seen_hot.pop(path, None)
            status, _ = await self.admin("POST", "/purge", json.dumps({"url": f"http://soak.test{path}"}))
            self.counts["purges"] += 1
            if status not in (200, 503):
                self.failed("purge", path, status)
            self.seen_hot.pop(path, None)

    async def admin(self, method, path, body=""):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.admin_port, limit=1 << 24)
        fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n{body}".encode())
        answer = await reader.read()
        writer.close()
        head, _, text = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), text.decode()

    # --- figures --------------------------------------------------------------------------------------------

    async def sample(self):
        _, metrics = await self.admin("GET", "/metrics")
        figure = lambda name: sum(
            float(v) for v in re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", metrics, re.M))
        with open(f"/proc/{self.larder.pid}/status") as status:
            status = status.read()
        of = lambda name: int(re.search(rf"^{name}:\s+(\d+)", status, re.M)[1])
        return {
            "at": time.monotonic() - self.began,
            "rss_mib": of("VmRSS") / 1024,
            "fds": len(os.listdir(f"/proc/{self.larder.pid}/fd")),
            "threads": of("Threads"),
            "tasks": figure("larder_tasks"),
            "fetches": figure("larder_fetches_in_flight"),
            "active": figure("larder_requests_active"),
            "memory_mib": figure("larder_memory_bytes") / (1 << 20),
            "requests": figure("larder_requests_total"),
            "panics": figure("larder_panics_total"),
        }

    async def watch(self):
        while not self.over:
            try:
                self.samples.append(await self.sample())
            except (OSError, IndexError, TypeError) as why:
                self.failed("figures", "/metrics", repr(why))
            await self.pause(2)

    # --- the whole ------------------------------------------------------------------------------------------

    def start_origin(self):
        self.origin = subprocess.Popen([sys.executable, __file__, "--origin", str(self.origin_port)])

    def start_redis(self):
        self.redis = None
        if self.args.redis:
            self.redis = subprocess.Popen(
                [self.args.redis, "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", "",
                 "--appendonly", "no", "--maxmemory", "128mb", "--maxmemory-policy", "allkeys-lru",
                 "--dir", self.directory], stdout=subprocess.DEVNULL)

    def write_config(self, turn, bad):
        redis = f'redis = "redis://127.0.0.1:{self.redis_port}"\n' if self.args.redis else ""
        text = (
            f'listen = "127.0.0.1:{self.proxy}"\nadmin = "127.0.0.1:{self.admin_port}"\nworkers = 2\n'
            f'[log]\nlevel = "error,larder::worker=off"\n[cache]\nmemory = "{BUDGET_MIB}MiB"\n{redis}'
            f'[timing]\nslow_request = "off"\n'
            f'[upstream.soak]\nservers = ["http://127.0.0.1:{self.origin_port}"]\n'
            f'timeout = {{ connect = "1s", first_byte = "2s", total = "{20 + turn % 3}s" }}\n'
            f'[[route]]\nname = "turn-{turn % 4}"\nmatch = {{ path = "/turn-{turn % 4}/*" }}\nupstream = "soak"\n'
            f'[[route]]\nname = "all"\nmatch = {{ path = "/*" }}\nupstream = "soak"\n'
            + ("nonsense = 1\n" if bad else ""))
        with open(self.config + ".new", "w") as file:
            file.write(text)
        os.replace(self.config + ".new", self.config)

    async def run(self):
        with tempfile.TemporaryDirectory(prefix="larder-soak-") as self.directory:
            self.config = os.path.join(self.directory, "proxy.toml")
            self.proxy, self.admin_port, self.origin_port, self.redis_port = free_ports(4)
            self.origin = self.redis = self.larder = None
            try:
                self.start_origin()
                self.start_redis()
                self.write_config(0, False)
                self.larder = subprocess.Popen([self.args.larder, "run", "-c", self.config])
                await self.wait_until_ready()
                return await self.soak()
            finally:
                for child in (self.larder, self.origin, self.redis):
                    if child and child.poll() is None:
                        child.send_signal(signal.SIGCONT)
                        child.kill()
                        child.wait()

    async def wait_until_ready(self):
        for _ in range(200):
            try:
                status, _ = await self.admin("GET", "/readyz")
                reader, writer = await asyncio.open_connection("127.0.0.1", self.origin_port)
                writer.close()
                if status == 200:
                    return
            except (OSError, IndexError):
                pass
            await asyncio.sleep(0.05)
        raise SystemExit("larder or the origin does not get ready")

    async def soak(self):
        self.began = time.monotonic()
        self.seen_hot = {}
        self.warm = self.began + min(20, self.args.seconds / 5)
        before = await self.settled()
        jobs = [self.client(seed) for seed in range(CLIENTS)] + [self.hostile(seed) for seed in range(HOSTILE)]
        jobs += [self.faults(), self.reloads(), self.purges(), self.watch()]
        jobs = [asyncio.create_task(job) for job in jobs]
        await asyncio.sleep(self.args.seconds)
        self.over = True
        done = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 90)
        for problem in (result for result in done if isinstance(result, Exception)):
            self.failed("the soak itself", "-", repr(problem))
        after = await self.at_rest(before)
        stopped = await self.stop()
        return self.report(before, after, stopped)

    async def settled(self):
        """The figures once they stay the same for two seconds: it is ready before all its connections to Redis stand."""
        same, last = 0, None
        for _ in range(60):
            now = await self.sample()
            same = same + 1 if last and all(now[key] == last[key] for key in ("fds", "tasks")) else 0
            if same == 4:
                break
            last = now
            await asyncio.sleep(0.5)
        return now

    async def at_rest(self, before):
        """The figures when nobody asks for anything any more, as soon as they are back to the first."""
        for _ in range(60):
            after = await self.sample()
            if after["fetches"] == 0 and after["tasks"] <= before["tasks"] + 4 and after["fds"] <= before["fds"] + 4:
                break
            await asyncio.sleep(1)
        return after

    async def stop(self):
        self.larder.send_signal(signal.SIGTERM)
        for _ in range(400):
            if self.larder.poll() is not None:
                return self.larder.returncode
            await asyncio.sleep(0.1)
        return None

    def report(self, before, after, stopped):
        rows = [("", "start", "a third in", "the end", "most", "at rest")]
        third = self.samples[len(self.samples) // 5 : 2 * len(self.samples) // 5]
        last = self.samples[-max(1, len(self.samples) // 5):]
        middle = lambda samples, key: statistics.median(sample[key] for sample in samples)
        problems = []
        for key in ("rss_mib", "memory_mib", "fds", "threads", "tasks", "fetches", "active"):
            early, late = middle(third, key), middle(last, key)
            most = max(sample[key] for sample in self.samples)
            rows.append((key, *(f"{figure:.1f}" for figure in (before[key], early, late, most, after[key]))))
            slack = {"rss_mib": 24, "memory_mib": BUDGET_MIB, "threads": 8}.get(key, 40)
            if late > early * 1.15 + slack:
                problems.append(f"{key} is not flat: {early:.1f} at first, {late:.1f} at the end")
        most = max(sample["rss_mib"] for sample in self.samples)
        allowed = before["rss_mib"] + 1.25 * BUDGET_MIB + 64
        if most > allowed:
            problems.append(f"{most:.0f} MiB of memory, more than {allowed:.0f}: 1.25 x the budget and a base")
        if after["fetches"] or after["tasks"] > before["tasks"] + 4:
            problems.append(f"at rest {after['fetches']:.0f} fetches and {after['tasks']:.0f} tasks are left")
        if after["fds"] > before["fds"] + 4:
            problems.append(f"at rest {after['fds']} descriptors are left of {before['fds']}")
        if after["panics"]:
            problems.append(f"{after['panics']:.0f} panics")
        if stopped != 0:
            problems.append(f"it ended with {stopped}")
        problems += [f"{count} x {what}" for what, count in self.failures.items()]
        self.counts["hot URLs gone in a fault, at most"] = max(map(len, self.gone.values()), default=0)
        print("\n".join("  ".join(f"{cell:>12}" for cell in row) for row in rows))
        print()
        # This script is slow beside a Larder, and on the same machine: not a benchmark.
        for kind in ("hot", "cold", "pass"):
            times = sorted(took for what, took in self.latency if what == kind)
            if times:
                shown = [f"{1000 * times[int(len(times) * part)]:.1f}" for part in (0.5, 0.99)]
                print(f"{kind:>12}  median {shown[0]} ms, 99 % {shown[1]} ms (through this script)")
        print()
        for what, count in sorted(self.counts.items()):
            print(f"{count:>12}  {what}")
        print()
        for example in self.examples:
            print(f"    {example}")
        for problem in problems:
            print(f"FAILED: {problem}")
        print(f"{'FAILED' if problems else 'PASSED'}: {self.args.seconds} s, {sum(self.counts[k] for k in ('hot', 'brief', 'cold', 'slow', 'pass', 'upload', 'big', 'cut', 'head'))} requests"
              + ("" if self.args.redis else ", WITHOUT REDIS"))
        return 1 if problems else 0


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--larder")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--redis")
    parser.add_argument("--origin", type=int, help="be the origin, on this port")
    args = parser.parse_args()
    if args.origin:
        asyncio.run(origin(args.origin))
        return 0
    return asyncio.run(Soak(args).run())


if __name__ == "__main__":
    sys.exit(main())
