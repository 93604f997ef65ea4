"""The comparison that compare.sh runs. Knows how each proxy is started and what it is asked.

Each figure is the CPU time that a proxy's processes took, divided by the requests that were answered. The proxies take
turns, so that a machine whose speed drifts is as fast for one as for another; a row's figure is the median of its
rounds, and what Larder takes as times of another the median of the times of each round. A run in which anything failed is no figure, nor one that was to be of hits and was not, or of misses.
"""
import argparse, json, os, pathlib, resource, shutil, signal, socket, statistics, subprocess, sys, tempfile, time
import urllib.request

HERE = pathlib.Path(__file__).parent
SERVER, LOAD = 0, 1  # processors
# Files that a proxy may have open: nginx keeps those of its cache so.
FILES = 262_144
# Of a run, the answers that may come from elsewhere than the row says.
STRAY = 0.01

# What is found of each run.
WHAT = ("micros", "p99_ms", "each_second")

# What is asked: a name, the paths, a field, whether it is HTTP/2, and what Larder may take at most: times of whom.
ROWS = [
    ("hit 1 KiB", "one:/c1024/a", None, False, [("haproxy", 0.85), ("raw", 1.25)]),
    ("hit 1 KiB, 100,000 objects", "zipf:/c1024/z:100000:0.9", None, False, [("haproxy", 0.87), ("raw", 1.3)]),
    ("hit 16 KiB", "one:/c16384/a", None, False, [("nginx", 0.9)]),
    ("hit 100 KiB", "one:/c102400/a", None, False, [("nginx", 0.85)]),
    ("hit 1 MiB", "one:/c1048576/a", None, False, [("raw", 1.08)]),
    ("304 to a client", "one:/c1024/a", 'If-None-Match: "1"', False, [("nginx", 0.85)]),
    ("miss 1 KiB", "each:/n1024/m:10000", None, False, [("nginx", 1.0)]),
    ("miss 100 KiB", "each:/n102400/m:10000", None, False, [("nginx", 1.0)]),
    ("uncacheable, one URL", "one:/n1024/u", None, False, [("haproxy", 1.2, "p99_ms")]),
    ("hit 1 KiB, HTTP/2", "/c1024/a", None, True, [("nginx", 0.75)]),
    ("new connection each", "fresh:/c1024/a", None, False, [("raw", 1.1)]),
]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def family(pid):
    """A process and those that it started."""
    found, todo = [], [pid]
    while todo:
        it = todo.pop()
        found.append(it)
        try:
            children = pathlib.Path(f"/proc/{it}/task/{it}/children").read_text().split()
        except FileNotFoundError:
            children = []
        todo += map(int, children)
    return found


def cpu(pid):
    """Seconds on a processor so far, of each of its threads: what the scheduler counts, in nanoseconds."""
    took = {}
    for it in family(pid):
        for thread in pathlib.Path(f"/proc/{it}/task").glob("*/schedstat"):
            try:
                took[thread] = int(thread.read_text().split()[0]) / 1e9
            except (FileNotFoundError, ProcessLookupError):
                continue
    return took


def since(before, pid):
    """Seconds since then. One that has ended meanwhile is left out: nginx has one that loads its cache and goes."""
    return sum(took - before.get(thread, 0) for thread, took in cpu(pid).items())


def files():
    """How many files may be open, after asking for as many as a large cache of files takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (FILES, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, max(most, hard)))
            return most
        except (ValueError, OSError):
            continue
    return soft


def pinned(processor, *command, **kw):
    return subprocess.Popen(["taskset", "-c", str(processor), *map(str, command)], **kw)


class Bench:
    def __init__(self, args, directory):
        self.args, self.directory, self.started = args, directory, []

    def start(self, processor, *command, **kw):
        it = pinned(processor, *command, **kw)
        self.started.append(it)
        return it

    def helper(self, processor, *words):
        """A part of load.rs that says where it listens."""
        it = self.start(processor, self.args.load, *words, stdout=subprocess.PIPE, text=True)
        return it, it.stdout.readline().strip()

    def written(self, name, values):
        text = (HERE / "peers" / name).read_text()
        for key, value in values.items():
            text = text.replace(f"@{key}@", str(value))
        path = self.directory / name
        path.write_text(text)
        return path

    def proxies(self, origin):
        host, origin_port = origin.split(":")
        most = files()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": open(self.directory / "errors", "ab")}
        found = {}
        for name, program in [("larder", self.args.larder), ("nginx", "nginx"), ("haproxy", "haproxy"), ("varnish", "varnishd")]:
            if self.args.peers and name not in self.args.peers.split(","):
                continue
            if not shutil.which(program):
                print(f"{name} is not installed: left out", file=sys.stderr)
                continue
            port, port2 = free_port(), free_port()
            own = self.directory / name
            own.mkdir()
            os.chmod(own, 0o777)
            values = {"PORT": port, "PORT2": port2, "ORIGIN": origin, "DIR": own, "HOST": host, "ORIGINPORT": origin_port,
                      "FILES": most, "OPEN": max(most - 12_288, 1024)}
            if name == "larder":
                command, port2 = [program, "run", "-c", self.written("larder.toml", values)], port
            elif name == "nginx":
                command = [program, "-p", own, "-c", self.written("nginx.conf", values)]
            elif name == "haproxy":
                command = [program, "-W", "-f", self.written("haproxy.cfg", values)]
            else:
                port2 = port
                command = [program, "-F", "-n", own, "-a", f"127.0.0.1:{port}", "-f", self.written("varnish.vcl", values),
                           "-s", "malloc,2g", "-p", "thread_pools=1", "-p", "thread_pool_min=200", "-p", "feature=+http2"]
            it = self.start(SERVER, *command, **quiet)
            found[name] = (it, f"127.0.0.1:{port}", f"127.0.0.1:{port2}")
        for name, (it, address, _) in found.items():
            wait_for(it, name, address, self.directory / "errors")
        return found

    def ask(self, address, paths, field, seconds):
        command = [self.args.load, "ask", address, 64, seconds, paths] + ([field] if field else [])
        it = subprocess.run(["taskset", "-c", str(LOAD), *map(str, command)], capture_output=True, text=True, check=True)
        return json.loads(it.stdout)

    def asked(self, origin):
        """How many answers the origin has given."""
        with urllib.request.urlopen(f"http://{origin}/count") as answer:
            return int(answer.read())

    def ask2(self, address, path, seconds):
        """Over HTTP/2: 64 connections, 8 streams each."""
        command = ["taskset", "-c", str(LOAD), "h2load", "-c64", "-m8", f"-D{round(seconds * 1000)}ms", f"http://{address}{path}"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        line = next(line for line in text.splitlines() if line.startswith("requests:"))
        numbers = [int(word) for word in line.replace(",", "").split() if word.isdigit()]
        total, _, _, good, failed, errors, _ = numbers
        return {"answers": good, "failed": failed + errors, "p99_us": 0}

    def stop(self):
        for it in reversed(self.started):
            if it.poll() is None:
                it.terminate()
        for it in self.started:
            try:
                it.wait(10)
            except subprocess.TimeoutExpired:
                it.kill()


def wait_for(it, name, address, errors):
    host, port = address.split(":")
    for _ in range(1200):
        if it.poll() is not None:
            sys.exit(f"{name} did not start: it ended with {it.returncode}\n{errors.read_text()}")
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{name} does not listen")


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--larder", required=True)
    asked.add_argument("--load", required=True)
    asked.add_argument("--quick", action="store_true", help="three rounds of 0.4 seconds, or of one where the slowest count")
    asked.add_argument("--only", default="", help="rows whose name holds this")
    asked.add_argument("--peers", default="", help="a list of those to run, with commas")
    asked.add_argument("--json", help="write the figures there, too")
    args = asked.parse_args()
    rounds, seconds = (3, 0.4) if args.quick else (10, 1.5)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="compare-", dir="/dev/shm"))
    os.chmod(directory, 0o755)  # varnishd drops its privileges
    bench = Bench(args, directory)
    try:
        _, origin = bench.helper(LOAD, "origin")
        proxies = bench.proxies(origin)
        relay, relay_at = bench.helper(SERVER, "relay", origin)
        figures = {}
        for name, paths, field, h2, limits in ROWS:
            if args.only not in name:
                continue
            if h2 and not shutil.which("h2load"):
                print(f"{name}: left out, needs h2load", file=sys.stderr)
                continue
            against = dict(proxies)
            if args.peers:
                against = {it: value for it, value in against.items() if it in args.peers.split(",")}
            least = []
            if name.startswith(("miss", "uncacheable")):
                against["raw"] = (relay, relay_at, relay_at)
            elif not h2:
                size = 0 if name.startswith("304") else int(paths.split("/")[1][1:])
                # Of many objects also what looks each up, and does nothing else.
                for it in ["raw", "held"] if paths.startswith("zipf") else ["raw"]:
                    process, address = bench.helper(SERVER, it, size)
                    against[it] = (process, address, address)
                    least.append(process)
            row = {it: [] for it in against}
            # Each turn begins with connections that are made all at once, which is not to be what the slowest took.
            lasts = max(seconds, 1) if any("p99_ms" in limit for limit in limits) else seconds
            for turn in range(rounds + 1):
                for it, (process, address, address2) in against.items():
                    if turn == 0:
                        # What a cache is to hold, and a first round that does not count.
                        if paths.startswith("zipf") and it != "raw":
                            _, path, of, _ = paths.split(":")
                            bench.ask(address, f"once:{path}:{of}", field, 600)
                        elif not h2:
                            bench.ask(address, paths, field, 1)
                        else:
                            bench.ask2(address2, paths, 1)
                        continue
                    before, fetched = cpu(process.pid), bench.asked(origin)
                    came = bench.ask2(address2, paths, lasts) if h2 else bench.ask(address, paths, field, lasts)
                    used = since(before, process.pid)
                    row[it].append(None)
                    if came["failed"] or not came["answers"]:
                        print(f"{name}, {it}: {came['failed']} failed", file=sys.stderr)
                        continue
                    fetched = (bench.asked(origin) - fetched) / came["answers"]
                    wanted = 1 if name.startswith(("miss", "uncacheable")) else 0
                    if it not in ("raw", "held") and abs(fetched - wanted) > STRAY:
                        print(f"{name}, {it}: {fetched:.2f} of the answers came from the origin", file=sys.stderr)
                        continue
                    row[it][-1] = (used / came["answers"] * 1e6, came["p99_us"] / 1000, came["answers"] / lasts)
            for process in least:
                process.terminate()
            figures[name] = {
                it: {what: median(runs, nth) for nth, what in enumerate(WHAT)}
                for it, runs in row.items() if any(runs)
            }
            ratios = [
                (other, limit, what, median(turns(row, other), WHAT.index(what)))
                for other, limit, what in ((*limit, "micros")[:3] for limit in limits)
                if other in figures[name] and "larder" in figures[name]
            ]
            if "held" in figures[name] and "larder" in figures[name]:
                ratios.append(("moka alone", None, "micros", median(turns(row, "held"), 0)))
            tell(name, figures[name], ratios, first=len(figures) == 1)
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")
    finally:
        bench.stop()
        shutil.rmtree(directory, ignore_errors=True)


def median(runs, nth):
    """Of those that are figures."""
    figures = [run[nth] for run in runs if run]
    return round(statistics.median(figures), 2) if figures else None


def turns(row, other):
    """Larder's figures as times of another's, of the rounds in which both have some: a machine that drifts does so for both."""
    pairs = zip(row["larder"], row[other])
    return [tuple(one / max(two, 1e-9) for one, two in zip(*pair)) for pair in pairs if all(pair)]


def tell(name, row, limits, first):
    columns = ["larder", "nginx", "haproxy", "varnish", "raw"]
    if first:
        print("| µs of CPU for each request | " + " | ".join(columns) + " | Larder to others, and the aim |")
        print("|---|" + "---|" * (len(columns) + 1))
    ratios = []
    for other, limit, what, ratio in limits:
        if ratio is not None:
            kind = "p99 " if what == "p99_ms" else ""
            ratios.append(f"{kind}{ratio:.2f} × {other}" + (f" (aim {limit})" if limit else ""))
    if "uncacheable" in name:
        ratios.append("p99 ms: " + ", ".join(f"{it} {row[it]['p99_ms']}" for it in row))
    cells = [f"{row[it]['micros']:.1f}" if it in row else "" for it in columns]
    print(f"| {name} | " + " | ".join(cells) + f" | {'; '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
