"""A latchbus server, and checks that are counted."""

import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
import traceback

from deadline import DEADLINE


def make_certificate(directory, *options):
    command = [os.environ["LATCHBUS"], "cert", directory, "127.0.0.1", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def pair_in(directory):
    return os.path.join(directory, "server.pem"), os.path.join(directory, "server.key")


class Server:
    """latchbus on ports of the system's choice, unless it is given one; in memory unless it is given a directory. With the
    directory of certificates it speaks TLS too, on other ports."""

    def __init__(self, directory=None, mqtt=0, tls=None, settings=None):
        self.port, self.http_port = mqtt, 0
        self.tls = []
        if tls:
            make_certificate(tls)
            self.certificate, self.key = pair_in(tls)
            self.trust = ssl.create_default_context(cafile=os.path.join(tls, "ca.pem"))
            self.tls = ["--http-tls", "127.0.0.1:0", "--mqtt-tls", "127.0.0.1:0"]
            self.tls += ["--tls-cert", self.certificate, "--tls-key", self.key]
        self.storage = ["--data-dir", directory] if directory else ["--ephemeral"]
        if settings:
            self.storage += ["--config", settings]

    def __enter__(self):
        command = [os.environ["LATCHBUS"], *self.storage, "--http", f"127.0.0.1:{self.http_port}"]
        command += ["--mqtt", f"127.0.0.1:{self.port}"]
        command += self.tls
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.log = []
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()
        line = self.process.stdout.readline()
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "mqtt" not in words:
            self.process.wait(DEADLINE)
            raise RuntimeError(f"no server: {line!r} {''.join(self.log)}")
        self.mqtt = int(words["mqtt"].rsplit(":", 1)[1])
        self.http = int(words["http"].rsplit(":", 1)[1])
        if self.tls:
            self.mqtts = int(words["mqtt-tls"].rsplit(":", 1)[1])
            self.https = int(words["http-tls"].rsplit(":", 1)[1])
        return self

    def new_certificate(self):
        """Of the same authority, in files of its own."""
        directory = os.path.dirname(self.certificate)
        other = os.path.join(directory, "new")
        shutil.copytree(directory, other)
        make_certificate(other, "--force")
        return pair_in(other)

    def keep_ports(self):
        """It comes back on the ports that it has: others do not look for it elsewhere."""
        self.port, self.http_port = self.mqtt, self.http

    def restart(self, meanwhile=lambda: None):
        """Stops it as a service manager does, and starts it again."""
        self.__exit__()
        meanwhile()
        return self.__enter__()

    def kill(self, meanwhile=lambda: None):
        """Ends it as a power cut does, and starts it again on what is left."""
        self.process.kill()
        self.process.wait(DEADLINE)
        meanwhile()
        return self.__enter__()

    def __exit__(self, *_):
        self.process.terminate()
        try:
            status = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if status != 0:
            raise RuntimeError(f"the server ended with {status}: {''.join(self.log)}")


class Checks:
    """Runs checks one after the other; the last line says how many passed and failed."""

    def __init__(self):
        self.passed = self.failed = 0

    def run(self, name, check, *arguments):
        begun = time.monotonic()
        try:
            check(*arguments)
        except Exception:
            self.failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
        else:
            self.passed += 1
            print(f"ok     {name} ({time.monotonic() - begun:.2f} s)", flush=True)

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed else 0)


def until(condition, what):
    """Waits until a condition holds."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not in time: {what}")
        time.sleep(0.005)


def same(found, expected):
    if found != expected:
        raise AssertionError(f"{found!r} is not {expected!r}")
