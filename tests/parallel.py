"""Runs every test: builds the test binaries, and runs several at once, each from when it is built.

Most tests wait more than they compute, and the compiler does not always keep every core busy: one binary after
the other, as `cargo test` runs them, takes much longer. Knows cargo's messages and how a test binary sums up.
Must not know: what any test does.
"""

import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

# Begun before all others that are built: they take longest, and none should be left alone at the end.
LONG = ("larder", "fuzz", "purging", "redis_sentinel", "redis_tier", "redis_drills", "redis_cluster")
# A binary that hangs is ended after so many seconds; none takes one minute on an idle machine.
PATIENCE = 600
SUMMARY = re.compile(r"^test result: (\w+)\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)


class Binary:
    """A test binary as cargo tells of it."""

    def __init__(self, artifact):
        target = artifact["target"]
        self.name, kind = target["name"], target["kind"][0]
        self.title = self.name if kind == "test" else f"{self.name} ({kind})"
        # The program's own file is a few lines without tests.
        self.may_be_empty = kind == "bin"
        self.path, self.directory = artifact["executable"], os.path.dirname(artifact["manifest_path"])

    def run(self):
        """Runs it as `cargo test` does: what is wrong or None, how many passed, and all that it said."""
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen([self.path], cwd=self.directory, stdin=subprocess.DEVNULL,
                                       env=dict(os.environ, CARGO_MANIFEST_DIR=self.directory),
                                       stdout=said, stderr=subprocess.STDOUT)
            try:
                code = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = None
            said.seek(0)
            text = said.read().decode(errors="replace")
        return (*self.judge(code, text), text)

    def judge(self, code, text):
        summaries = SUMMARY.findall(text)
        passed = sum(int(passed) for _, passed, _, _ in summaries)
        if code is None:
            return f"still ran after {PATIENCE} s", passed
        if code != 0:
            return f"ended with {code}", passed
        if len(summaries) != 1 or summaries[0][0] != "ok" or summaries[0][2] != "0":
            return "does not say that all is well", passed
        if passed == 0 and not self.may_be_empty:
            return "ran no test", passed
        return None, passed


class Suite:
    """The binaries that wait, those that run, and what came of those that ended."""

    def __init__(self):
        self.changed = threading.Condition()
        self.waiting, self.complete = [], False
        self.passed, self.ended, self.failed = 0, 0, []

    def add(self, binary):
        with self.changed:
            self.waiting.append(binary)
            self.waiting.sort(key=lambda each: LONG.index(each.name) if each.name in LONG else len(LONG))
            self.changed.notify()

    def close(self):
        """No more will come."""
        with self.changed:
            self.complete = True
            self.changed.notify_all()

    def work(self):
        """Runs one after the other of those that wait, until no more come."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or self.complete)
                if not self.waiting:
                    return
                binary = self.waiting.pop(0)
            begun = time.monotonic()
            wrong, passed, text = binary.run()
            seconds = time.monotonic() - begun
            with self.changed:
                self.ended, self.passed = self.ended + 1, self.passed + passed
                print(f"{binary.title}: {passed} passed in {seconds:.1f} s", flush=True)
                if wrong:
                    self.failed.append(f"{binary.title} {wrong}")
                    print(f"{text}\n{binary.title} {wrong}", flush=True)


def build(suite):
    """Builds all, and adds each to the suite as it comes; returns whether that went well and how many there are."""
    command = ["cargo", "test", "--locked", "--no-run", "--message-format=json-render-diagnostics"]
    cargo = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    count, succeeded, program, held = 0, False, False, []
    for line in cargo.stdout:
        message = json.loads(line)
        succeeded |= message["reason"] == "build-finished" and message["success"]
        if message["reason"] != "compiler-artifact" or not message["executable"]:
            continue
        kind = message["target"]["kind"][0]
        if message["profile"]["test"]:
            count += 1
            # Integration tests start the program, which cargo may link after them.
            if kind == "test" and not program:
                held.append(Binary(message))
            else:
                suite.add(Binary(message))
        elif kind == "bin":
            program = True
            while held:
                suite.add(held.pop())
    built = cargo.wait() == 0 and succeeded and program
    return built, count


def main():
    cores = os.cpu_count() or 1
    suite = Suite()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        # Beside the compiler few: it is slowed by what they compute, and they by it.
        workers = [pool.submit(suite.work) for _ in range(cores)]
        try:
            built, count = build(suite)
            if not built:
                suite.waiting.clear()
        finally:
            suite.close()
        workers += [pool.submit(suite.work) for _ in range(cores)]
        for worker in workers:
            worker.result()
    if not built:
        sys.exit("==> the tests or the program do not compile")
    for wrong in suite.failed:
        print(f"==> {wrong}", file=sys.stderr)
    if suite.failed or suite.ended != count or suite.passed == 0:
        sys.exit(f"==> {len(suite.failed)} of {count} test binaries failed, {count - suite.ended} did not run")
    print(f"==> {suite.passed} tests passed in {count} binaries")


if __name__ == "__main__":
    main()
