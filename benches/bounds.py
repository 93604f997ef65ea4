"""The bounds that bounds.sh measures. Knows how Larder is started and what each bound is about.

Memory is what the system has given a process (VmRSS), CPU time what its threads took. Each bound has a Larder of its
own, with everything on that is on by default. What is compared takes turns, since a machine's speed drifts. Talks to loopback alone, and ends what it started.
"""
import argparse, bisect, json, pathlib, random, resource, shutil, signal, socket, subprocess, sys, tempfile, threading, time
from statistics import median

from compare import LOAD, SERVER, cpu, free_port, since

MIB = 1024 * 1024


def resident(pid, what="VmRSS"):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(what + ":"))


class Asking:
    """One connection of HTTP/1.1, for requests one after the other."""

    def __init__(self, address):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.held = b""

    def ask(self, path, method="GET", body=b""):
        """Status, head and body."""
        length = f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n" if body else ""
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: bench.test\r\n{length}\r\n".encode() + body)
        while b"\r\n\r\n" not in self.held:
            self.more()
        head, self.held = self.held.split(b"\r\n\r\n", 1)
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", b"0"))
        while len(self.held) < length:
            self.more()
        body, self.held = self.held[:length], self.held[length:]
        return int(head[9:12]), fields, body

    def more(self):
        came = self.socket.recv(1 << 18)
        if not came:
            raise ConnectionError("closed in an answer")
        self.held += came


def asked_for(origin):
    """How many requests the load's origin has answered."""
    return int(Asking(origin).ask("/count")[2])


class SizedOrigin:
    """An origin whose bodies have a size by their path: /s{bytes}/{anything}. Storable for an hour."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            stream, _ = self.socket.accept()
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        held = b""
        while True:
            while b"\r\n\r\n" not in held:
                came = stream.recv(65536)
                if not came:
                    return
                held += came
            head, held = held.split(b"\r\n\r\n", 1)
            size = int(head.split(b" ", 2)[1].split(b"/")[1][1:])
            stream.sendall(
                b"HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % size
                + b"x" * size
            )


class Bench:
    def __init__(self, args, directory):
        self.args, self.directory, self.started = args, directory, []

    def start(self, processors, *command, **kw):
        it = subprocess.Popen(["taskset", "-c", processors, *map(str, command)], **kw)
        self.started.append(it)
        return it

    def origin(self):
        it = self.start(str(LOAD), self.args.load, "origin", stdout=subprocess.PIPE, text=True)
        return it.stdout.readline().strip()

    def larder(self, origin, memory="256MiB", workers=1, cache="", limits="", routes=None, processors=str(SERVER)):
        """A running Larder: the process, its address, and how long it took until it listened."""
        port = free_port()
        routes = routes or '[[route]]\nname = "all"\nmatch = { path = "/*" }\nupstream = "origin"\n'
        path = self.directory / f"{port}.toml"
        path.write_text(
            f'listen = "127.0.0.1:{port}"\nadmin = "127.0.0.1:{free_port()}"\nworkers = {workers}\n'
            f'[cache]\nmemory = "{memory}"\n{cache}\n[limits]\nper_address = 16384\n{limits}\n'
            f'[upstream.origin]\nservers = ["http://{origin}"]\n{routes}'
        )
        log = open(self.directory / f"{port}.log", "wb")
        began = time.monotonic()
        it = self.start(processors, self.args.larder, "run", "-c", path, stdout=log, stderr=log)
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return it, f"127.0.0.1:{port}", time.monotonic() - began
            except OSError:
                if it.poll() is not None:
                    sys.exit(f"larder did not start:\n{(self.directory / f'{port}.log').read_text()}")
                if time.monotonic() - began > 30:
                    sys.exit("larder does not listen")
                time.sleep(0.001)

    def load(self, *words, processor=LOAD):
        command = ["taskset", "-c", str(processor), self.args.load, *map(str, words)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def fill(self, origin, address, path, many):
        """Asks for so many objects, all of which are stored then."""
        seconds = 4
        while True:
            before = asked_for(origin)
            if self.load("ask", address, 64, seconds, f"each:{path}:{many}")["answers"] >= many and asked_for(origin) == before:
                return
            seconds = min(seconds * 2, 300)

    def in_turns(self, *asked, rounds=13, seconds=0.7):
        """Microseconds of CPU for each of many answers, a list for each of (process, address, paths), that take turns."""
        runs = [[] for _ in asked]
        for turn in range(rounds + 1):
            for (process, address, paths), found in zip(asked, runs):
                before = cpu(process.pid)
                came = self.load("ask", address, 64, seconds, paths)
                if came["failed"] or not came["answers"]:
                    sys.exit(f"{came['failed']} requests failed")
                if turn:
                    found.append(since(before, process.pid) / came["answers"] * 1e6)
        return runs

    def stop(self, *these):
        these = these or self.started
        for it in these:
            if it.poll() is None:
                it.terminate()
        for it in these:
            try:
                it.wait(10)
            except subprocess.TimeoutExpired:
                it.kill()
        self.started = [it for it in self.started if it not in these]


def object_memory(bench):
    """Memory for each stored object of 1 KiB beyond its body: 100,000 of them, each with seven fields."""
    origin, many = bench.origin(), 100_000
    it, address, _ = bench.larder(origin, memory="1GiB")
    bench.load("ask", address, 64, 1, "each:/c1024/first:1000")
    before, fetched = resident(it.pid), asked_for(origin)
    bench.fill(origin, address, "/c1024/o", many)
    beyond = (resident(it.pid) - before) / (asked_for(origin) - fetched) - 1024
    return f"{beyond:.0f} bytes", "800 bytes", beyond <= 800


def idle_connection(bench):
    """Memory for each connection that has asked once and waits: 10,000 of them."""
    it, address, _ = bench.larder(bench.origin())
    bench.load("ask", address, 64, 1, "one:/c1024/idle")
    before = resident(it.pid)
    holder = bench.start(str(LOAD), bench.args.load, "idle", address, 10_000, 5, stdout=subprocess.PIPE, text=True)
    held = json.loads(holder.stdout.readline())["open"]
    each = (resident(it.pid) - before) / held / 1024
    return f"{each:.1f} KiB", "20 KB", each * 1024 <= 20_000


def streaming(bench):
    """How much memory grows while 10 GB stream through, half of them unstored, half into a cache too small for them."""
    it, address, _ = bench.larder(bench.origin(), memory="64MiB")
    bench.load("ask", address, 8, 2, "each:/c104857600/warm:1000")
    bench.load("ask", address, 8, 2, "each:/n104857600/warm:1000")
    before, most = resident(it.pid), 0
    for kind in "nc":
        sent = 0
        while sent < 5_000_000_000:
            sent += bench.load("ask", address, 8, 2, f"each:/{kind}104857600/m:100000")["bytes"]
            most = max(most, resident(it.pid))
    grown = (most - before) / MIB
    return f"{grown:.1f} MiB", "16 MB", grown * MIB < 16_000_000


def hit_ratio(bench):
    """Hits with 64 MiB: 300,000 requests, Zipf 0.9 over 100,000 objects of 1 to 8 KiB, 30 % asked for only once."""
    it, address, _ = bench.larder(SizedOrigin().address, memory="64MiB")
    dice, shares, total = random.Random(7), [], 0.0
    for rank in range(1, 100_001):
        total += rank**-0.9
        shares.append(total)
    sizes = [dice.randrange(1024, 8193) for _ in shares]
    asking, hits, most = Asking(address), 0, 0
    for n in range(300_000):
        if dice.random() < 0.3:
            path = f"/s{dice.randrange(1024, 8193)}/once{n}"
        else:
            rank = bisect.bisect(shares, dice.random() * total)
            path = f"/s{sizes[rank]}/{rank}"
        status, fields, _ = asking.ask(path)
        if status != 200:
            sys.exit(f"{path} was answered with {status}")
        hits += b"age" in fields
        if n % 1000 == 0:
            most = max(most, resident(it.pid))
    ratio = hits / 3000
    return f"{ratio:.1f} % with {most / MIB:.0f} MiB resident", "at least 43 %, 70 MiB", ratio >= 43 and most <= 64 * 1.1 * MIB


def stampede(bench):
    """500 clients for one cold URL of an origin that takes 300 ms: the last is done, and fetches."""
    origin = bench.origin()
    it, address, _ = bench.larder(origin)
    runs = []
    for n in range(5):
        came = bench.load("stampede", address, 500, f"/c1024/s{n}?wait=300")
        if came["answers"] != 500:
            sys.exit(f"{came['failed']} clients were not answered")
        runs.append(came["last_ms"])
    fetches = asked_for(origin)
    last = sorted(runs)[2]
    return f"{last:.0f} ms, {fetches / 5:.0f} fetch each", "330 ms, 1 fetch", last <= 330 and fetches == 5


def many_objects(bench):
    """CPU for a hit among 1,000,000 objects, as times of that among 10,000: Zipf 0.9."""
    origin, asked = bench.origin(), []
    for many in (10_000, 1_000_000):
        it, address, _ = bench.larder(origin, memory="4GiB")
        bench.fill(origin, address, "/c100/m", many)
        asked.append((it, address, f"zipf:/c100/m:{many}:0.9"))
    few, many = bench.in_turns(*asked)
    ratio = median(b / a for a, b in zip(few, many))
    return f"{ratio:.2f} ({median(few):.1f} and {median(many):.1f} µs)", "1.15", ratio <= 1.15


def two_workers(bench):
    """CPU for a hit on two threads, as times of that on one: 1.08 is 1.85 times the hits of one."""
    origin, asked = bench.origin(), []
    for workers in (1, 2):
        it, address, _ = bench.larder(origin, workers=workers, processors=str(SERVER))
        bench.load("ask", address, 64, 1, "each:/c1024/w:1000")
        asked.append((it, address, "zipf:/c1024/w:1000:0.9"))
    one, two = bench.in_turns(*asked)
    ratio = median(b / a for a, b in zip(one, two))
    return f"{ratio:.2f} ({median(one):.1f} and {median(two):.1f} µs, on one processor)", "1.08", ratio <= 1.08


def start(bench):
    """Until it listens, the median of eleven."""
    origin = bench.origin()
    took = []
    for _ in range(11):
        it, _, after = bench.larder(origin, processors=f"{SERVER},{LOAD}")
        took.append(after * 1000)
        bench.stop(it)
    return f"{sorted(took)[5]:.0f} ms", "50 ms", sorted(took)[5] <= 50


def many_routes(bench):
    """What a hit costs more where there are 10,000 routes, the last of which is meant."""
    origin, asked = bench.origin(), []
    last = '[[route]]\nname = "all"\nmatch = { path = "/*" }\nupstream = "origin"\n'
    for many in (0, 9_999):
        routes = "".join(
            f'[[route]]\nname = "r{n}"\nmatch = {{ path = "/api/v{n % 7}/r{n}/*" }}\nupstream = "origin"\n' for n in range(many)
        )
        it, address, after = bench.larder(origin, routes=routes + last)
        bench.load("ask", address, 64, 1, "one:/c1024/a")
        asked.append((it, address, "one:/c1024/a"))
    one, ten_thousand = bench.in_turns(*asked)
    more = median(b - a for a, b in zip(one, ten_thousand)) * 1000
    return f"{more:+.0f} ns; listens after {after * 1000:.0f} ms", "300 ns", more <= 300


def redis(bench):
    """A redis-server beside the load, and its port."""
    server = shutil.which("redis-server")
    if not server or not shutil.which("redis-benchmark"):
        sys.exit("needs redis-server and redis-benchmark: apt install redis-server redis-tools")
    port = free_port()
    log = open(bench.directory / "redis.log", "wb")
    words = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", bench.directory, "--databases", 1]
    bench.start(str(LOAD), server, *words, stdout=log, stderr=log)
    return port


def redis_says(port, *words):
    with socket.create_connection(("127.0.0.1", port), 10) as it:
        it.sendall(b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words)]))
        return it.recv(4096)


def await_redis(port, least):
    """Until it holds so many keys."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            said = redis_says(port, "DBSIZE")
            if said.startswith(b":") and int(said[1:]) >= least:
                return
        except OSError:
            pass
        time.sleep(0.05)
    sys.exit(f"redis does not have what it should: {said}")


# Objects that a Larder has put into Redis for another.
SHARED = 20_000


def shared(bench, origin, port, **more):
    """A Larder whose objects are in Redis, all of them, and none in its memory."""
    words = f'redis = "redis://127.0.0.1:{port}"\nredis_deadline = "1s"\nredis_queue = "256MiB"\nwarm_start = false'
    first, address, _ = bench.larder(origin, cache=words)
    bench.load("ask", address, 1, 60, f"once:/c1024/r:{SHARED}")
    # Writes are tried, and dropped where Redis is late: on the processor that it shares with the load some are.
    await_redis(port, SHARED * 0.9)
    bench.stop(first)
    return bench.larder(origin, cache=words, **more)


def relayed(bench, origin):
    """How many times as long an answer takes by who passes bytes on and does nothing else: the least of any who asks another."""
    it = bench.start(str(SERVER), bench.args.load, "relay", origin, stdout=subprocess.PIPE, text=True)
    asked = [(origin, SERVER), (it.stdout.readline().strip(), LOAD)]
    direct, relayed = (
        bench.load("ask", address, 1, 2, "each:/n1024/m:10000", processor=processor)["p50_us"] for address, processor in asked
    )
    bench.stop(it)
    return relayed / direct


def redis_hit(bench):
    """A hit in Redis of 1 KiB, one after the other: the median, as times of that of a bare GET of as many bytes."""
    port, origin = redis(bench), bench.origin()
    it, address, _ = shared(bench, origin, port)
    before = asked_for(origin)
    hit = bench.load("ask", address, 1, 60, f"once:/c1024/r:{SHARED}")["p50_us"]
    if asked_for(origin) - before > SHARED / 8:
        sys.exit("these are no hits")
    words = ["-p", port, "-c", 1, "-n", SHARED, "-d", 1400, "-t", "set,get", "--precision", 3, "--csv"]
    said = subprocess.run(
        ["taskset", "-c", str(SERVER), "redis-benchmark", *map(str, words)], capture_output=True, text=True, check=True
    ).stdout.replace('"', "")
    lines = [line.split(",") for line in said.splitlines()]
    get = float(next(line for line in lines if line[0] == "GET")[lines[0].index("p50_latency_ms")]) * 1000
    least = relayed(bench, origin)
    return f"{hit / get:.2f} ({hit:.0f} and {get:.0f} µs; a bare relay, of its origin: {least:.2f})", "1.6", hit / get <= 1.6


def redis_cpu(bench):
    """Larder's CPU for a hit in Redis of 1 KiB, 64 connections."""
    port, origin = redis(bench), bench.origin()
    it, address, _ = shared(bench, origin, port)
    before, fetched = cpu(it.pid), asked_for(origin)
    came = bench.load("ask", address, 64, 60, f"once:/c1024/r:{SHARED}")
    if asked_for(origin) - fetched > SHARED / 8:
        sys.exit("these are no hits")
    each = since(before, it.pid) / came["answers"] * 1e6
    return f"{each:.1f} µs", "25 µs", each <= 25


def mixed_tail(bench):
    """p99 of hits in memory while others miss and hit in Redis and a tag is purged each second, as times of hits alone."""
    port, origin = redis(bench), bench.origin()
    it, address, _ = shared(bench, origin, port)
    admin = (bench.directory / f"{address.split(':')[1]}.toml").read_text().split('admin = "')[1].split('"')[0]
    hits = "zipf:/c1024/h:1000:0.9"
    bench.load("ask", address, 64, 1, "each:/c1024/h:1000")
    alone = sorted(bench.load("ask", address, 64, 3, hits)["p99_us"] for _ in range(3))[1]

    def beside(connections, paths):
        command = [bench.args.load, "ask", address, connections, 9, paths]
        return bench.start(str(LOAD), *command, stdout=subprocess.DEVNULL)

    others = [beside(13, "each:/n1024/m:10000"), beside(6, f"each:/c1024/r:{SHARED}")]
    purging = Asking(admin)
    over = threading.Event()

    def purge():
        while not over.wait(1):
            purging.ask("/purge", "POST", b'{"tags": ["none-has-this"]}')

    thread = threading.Thread(target=purge, daemon=True)
    thread.start()
    mixed = sorted(bench.load("ask", address, 45, 2, hits)["p99_us"] for _ in range(3))[1]
    over.set()
    thread.join()
    for other in others:
        other.wait()
    return f"{mixed / alone:.1f} ({mixed} and {alone} µs)", "3", mixed / alone <= 3


BOUNDS = [start, stampede, object_memory, idle_connection, hit_ratio, streaming, many_routes, two_workers, many_objects, redis_hit, redis_cpu, mixed_tail]


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--larder", required=True)
    asked.add_argument("--load", required=True)
    asked.add_argument("--only", default="", help="bounds whose name holds this")
    args = asked.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = pathlib.Path(tempfile.mkdtemp(prefix="bounds-"))
    print("| what | measured | at most | |\n|---|---|---|---|")
    missed = 0
    try:
        for bound in BOUNDS:
            if args.only not in bound.__name__:
                continue
            bench = Bench(args, directory)
            try:
                measured, most, holds = bound(bench)
            finally:
                bench.stop()
            missed += not holds
            print(f"| {bound.__doc__.strip().rstrip('.')} | {measured} | {most} | {'holds' if holds else '**missed**'} |", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
