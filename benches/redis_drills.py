#!/usr/bin/env python3
"""Milliseconds of memory hits and misses while Redis is ill, beside those of the healthy run.

    cargo build --release && python3 benches/redis_drills.py

Starts a redis-server, an origin and Larder at its default settings, and for each fault asks at a steady
pace for what memory holds and for what nobody has asked for yet. Prints p50, p99 and the largest of each,
and how many answers were not a 200 with the right body. Uses loopback and free ports, ends what it starts.
On a busy machine the figures are of the machine; there `chrt -r 5 python3 …` gives those of Larder.
"""
import asyncio
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LARDER = os.environ.get("LARDER", str(ROOT / "target/release/larder"))
SECONDS = float(os.environ.get("SECONDS_EACH", "6"))
PACE = float(os.environ.get("REQUESTS_PER_SECOND", "400"))
HOT = 50


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


async def origin(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = head.split(b" ")[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


class Relay:
    """Stands before Redis: passes, delays or garbles what it says."""

    def __init__(self, target):
        self.target, self.delay, self.garbage = target, 0.0, None

    async def serve(self, reader, writer):
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self.pump(reader, up_writer, writer), self.back(up_reader, writer))

    async def pump(self, reader, writer, client):
        try:
            while data := await reader.read(65536):
                if self.garbage:
                    client.write(self.garbage)
                else:
                    writer.write(data)
        except ConnectionError:
            pass
        writer.close()

    async def back(self, reader, writer):
        loop, last = asyncio.get_running_loop(), 0.0
        try:
            while data := await reader.read(65536):
                if self.garbage:
                    continue
                last = max(last, loop.time() + self.delay)
                loop.call_at(last, lambda data=data: writer.is_closing() or writer.write(data))
        except ConnectionError:
            pass
        loop.call_at(max(last, loop.time()), writer.close)


class Redis:
    def __init__(self):
        self.port, self.process, self.dir = free_port(), None, tempfile.mkdtemp()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", self.dir],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def say(self, *words):
        with socket.create_connection(("127.0.0.1", self.port), 1) as s:
            s.settimeout(10)
            s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words))
            return s.recv(1000)


class Client:
    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def get(self, path):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        began = time.perf_counter()
        self.writer.write(b"GET %b HTTP/1.1\r\nHost: a.test\r\n\r\n" % path.encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await self.reader.readexactly(length)
        ms = (time.perf_counter() - began) * 1000
        return ms, head.startswith(b"HTTP/1.1 200") and body == path.encode()


class Load:
    def __init__(self, port):
        self.port, self.number = port, 0

    async def run(self, name, during=lambda: None):
        times, wrong = {"hit": [], "miss": []}, 0
        clients = [Client(self.port) for _ in range(16)]
        free = asyncio.Queue()
        for client in clients:
            free.put_nowait(client)
        during()

        async def one(kind, path):
            nonlocal wrong
            client = await free.get()
            try:
                ms, right = await client.get(path)
                times[kind].append(ms)
                wrong += not right
            except (OSError, asyncio.IncompleteReadError):
                wrong += 1
                client.writer = None
            free.put_nowait(client)

        tasks, began = [], time.perf_counter()
        for nth in range(int(SECONDS * PACE)):
            await asyncio.sleep(max(0.0, began + nth / PACE - time.perf_counter()))
            self.number += 1
            if nth % 2:
                tasks.append(asyncio.create_task(one("hit", f"/hot/{nth % HOT}")))
            else:
                query = "?a=1" if nth % 4 else ""
                tasks.append(asyncio.create_task(one("miss", f"/cold/{self.number}{query}")))
        await asyncio.gather(*tasks)
        for client in clients:
            if client.writer:
                client.writer.close()
        line = f"{name:24}"
        for kind, all_ in times.items():
            all_.sort()
            at = lambda q: all_[min(len(all_) - 1, int(len(all_) * q))]
            line += f"  {kind} p50 {at(.5):6.2f}  p99 {at(.99):6.2f}  max {all_[-1]:7.2f}"
        print(f"{line}  wrong {wrong}", flush=True)


async def main():
    # Connections that end with what they led to are what this is about.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    redis = Redis()
    redis.start()
    upstream = await asyncio.start_server(origin, "127.0.0.1", 0)
    relay = Relay(redis.port)
    front = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    port, directory = free_port(), tempfile.mkdtemp()
    file = pathlib.Path(directory) / "proxy.toml"
    file.write_text(f"""
listen = "127.0.0.1:{port}"
admin = "off"
workers = 2
[cache]
redis = "redis://127.0.0.1:{front.sockets[0].getsockname()[1]}"
[upstream.o]
servers = ["http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}"]
[[route]]
name = "all"
match = {{ path = "/*" }}
upstream = "o"
[route.cache]
ttl.default = "1h"
""")
    larder = subprocess.Popen([LARDER, "run", "-c", str(file)], stderr=subprocess.DEVNULL)
    try:
        await asyncio.sleep(1)
        load = Load(port)
        warm = Client(port)
        for nth in range(HOT):
            await warm.get(f"/hot/{nth}")

        async def drill(name, begin, end):
            await load.run(name, begin)
            end()
            await asyncio.sleep(3)

        await load.run("(warming up)")
        await load.run("healthy")
        nothing = lambda: None
        await drill("killed", redis.kill, redis.start)
        await drill("frozen", lambda: redis.process.send_signal(signal.SIGSTOP),
                    lambda: redis.process.send_signal(signal.SIGCONT))
        await drill("slow by 2 s", lambda: setattr(relay, "delay", 2.0), lambda: setattr(relay, "delay", 0.0))
        await drill("slow by 15 ms", lambda: setattr(relay, "delay", .015), lambda: setattr(relay, "delay", 0.0))
        await drill("garbage", lambda: setattr(relay, "garbage", b"HTTP/1.1 400 what\r\n\r\n"),
                    lambda: setattr(relay, "garbage", None))
        await drill("errors", lambda: setattr(relay, "garbage", b"-ERR what\r\n" * 4),
                    lambda: setattr(relay, "garbage", None))
        await drill("full", lambda: (redis.say("CONFIG", "SET", "maxmemory", "1")),
                    lambda: redis.say("CONFIG", "SET", "maxmemory", "0"))

        def restart():
            redis.kill()
            redis.start()
        await drill("restarted empty", restart, nothing)
        await drill("busy with a script", lambda: asyncio.get_running_loop().run_in_executor(
            None, lambda: redis.say("EVAL", "for i = 1, 200000000 do end", "0")), nothing)
        await load.run("healthy again")
    finally:
        larder.terminate()
        larder.wait()
        redis.kill()
        shutil.rmtree(directory)
        shutil.rmtree(redis.dir)


asyncio.run(main())
