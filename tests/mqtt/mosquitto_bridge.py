"""A bridge of mosquitto, with its defaults, to latchbus: both ways, retained values, restarts of either side, no echo."""

import os
import socket
import subprocess
import tempfile
import threading

from server import DEADLINE, Checks, Server, same, until


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Mosquitto:
    """mosquitto with a bridge of all topics below b/ both ways."""

    def __init__(self, directory, remote, extra=""):
        self.directory, self.port = directory, free_port()
        self.configuration = os.path.join(directory, "mosquitto.conf")
        with open(self.configuration, "w", encoding="utf-8") as file:
            file.write(
                f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
                f"user {os.environ.get('USER', 'root')}\n"
                f"persistence true\npersistence_location {directory}/\n"
                "connection latchbus\n"
                f"address 127.0.0.1:{remote}\n"
                "topic b/# both 1\nrestart_timeout 1\ncleansession false\n" + extra
            )

    def __enter__(self):
        command = ["mosquitto", "-v", "-c", self.configuration]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.log = []
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(DEADLINE)

    def connected(self):
        """Waits until the bridge has its subscriptions."""
        def subscribed():
            return any("Received SUBACK" in line or "received SUBACK" in line for line in self.log)

        try:
            until(subscribed, "the bridge's SUBACK")
        except AssertionError as error:
            raise AssertionError("".join(self.log[-20:])) from error


class Watcher:
    """Everything below b/ that a server delivers, with the retain flag."""

    def __init__(self, port):
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-t", "b/#", "-q", "1", "-F", "%t %p", "-d"]
        self.process = subprocess.Popen(["stdbuf", "-oL", *command], stdout=subprocess.PIPE, text=True)
        self.lines, self.debug = [], []
        threading.Thread(target=self.read, daemon=True).start()
        until(lambda: any("SUBACK" in line for line in self.debug), "SUBACK")

    def read(self):
        for line in self.process.stdout:
            line = line.rstrip("\n")
            (self.debug if line.startswith(("Client ", "Subscribed ")) else self.lines).append(line)

    def expect(self, *lines):
        until(lambda: all(line in self.lines for line in lines), f"{lines}, but {self.lines}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def publish(port, topic, payload, *arguments):
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-t", topic, "-m", payload, "-q", "1", *arguments]
    subprocess.run(command, check=True, timeout=DEADLINE)


def last(port, topic):
    """The retained value of a topic, or none."""
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-t", topic, "--retained-only", "-C", "1", "-W", "1"]
    done = subprocess.run(
        command, timeout=DEADLINE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
    )
    return done.stdout.strip() or None


def both_ways():
    with tempfile.TemporaryDirectory() as directory, Server() as server:
        publish(server.mqtt, "b/here/kept", "1", "-r")
        with Mosquitto(directory, server.mqtt) as there:
            there.connected()
            with Watcher(server.mqtt) as here_sees, Watcher(there.port) as there_sees:
                there_sees.expect("b/here/kept 1")
                publish(there.port, "b/there/kept", "2", "-r")
                publish(there.port, "b/there/event", "3")
                publish(server.mqtt, "b/here/event", "4")
                publish(server.mqtt, "b/here/kept", "5", "-r")
                here_sees.expect("b/there/kept 2", "b/there/event 3")
                there_sees.expect("b/here/event 4", "b/here/kept 5")
                # What follows on the same ways comes after any echo.
                for name in "xyz":
                    publish(there.port, "b/there/last", name)
                    publish(server.mqtt, "b/here/last", name)
                here_sees.expect("b/there/last z")
                there_sees.expect("b/here/last z")
                for sees in (here_sees, there_sees):
                    ours = ["b/here/kept 1", "b/there/kept 2", "b/there/event 3", "b/here/event 4", "b/here/kept 5"]
                    ours += [f"b/{side}/last {name}" for side in ("here", "there") for name in "xyz"]
                    same(sorted(sees.lines), sorted(ours))
            # Retained stays retained, on either side.
            same(last(there.port, "b/here/kept"), "5")
            same(last(server.mqtt, "b/there/kept"), "2")
            # A clear crosses too.
            publish(server.mqtt, "b/there/kept", "", "-r")
            until(lambda: last(there.port, "b/there/kept") is None, "the clear")


def a_kill_of_latchbus():
    """What is published there meanwhile comes, and no older value replaces a newer."""
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as directory:
        port = free_port()
        with Server(data, mqtt=port) as server, Mosquitto(directory, port) as there:
            there.connected()
            publish(there.port, "b/there/kept", "old", "-r")
            publish(port, "b/here/kept", "old", "-r")
            until(lambda: last(port, "b/there/kept") == "old", "the value here")
            until(lambda: last(there.port, "b/here/kept") == "old", "the value there")
            with Watcher(there.port) as there_sees:
                there_sees.expect("b/there/kept old", "b/here/kept old")
                there_sees.lines.clear()
                there.log.clear()
                server = server.kill(lambda: publish(there.port, "b/there/kept", "new", "-r"))
                try:
                    there.connected()
                    until(lambda: last(port, "b/there/kept") == "new", "the new value here")
                    publish(port, "b/here/kept", "new", "-r")
                    there_sees.expect("b/here/kept new")
                    same(last(there.port, "b/there/kept"), "new")
                    same(last(port, "b/there/kept"), "new")
                except BaseException:
                    server.process.kill()
                    raise
                same([line for line in there_sees.lines if "there" in line], ["b/there/kept new"])


def restarts_of_mosquitto():
    """mosquitto sends what it retains once more at each connection; beyond that nothing comes twice, and no value goes back."""
    with tempfile.TemporaryDirectory() as directory, Server() as server:
        bridge = Mosquitto(directory, server.mqtt)
        with bridge as there:
            there.connected()
            publish(there.port, "b/there/kept", "old", "-r")
            until(lambda: last(server.mqtt, "b/there/kept") == "old", "the value here")
        with Watcher(server.mqtt) as here_sees:
            here_sees.expect("b/there/kept old")
            for payload in ("new", "newer"):
                # The session waits here.
                publish(server.mqtt, "b/here/event", payload)
                publish(server.mqtt, f"b/here/{payload}", payload, "-r")
                with bridge as there:
                    there.connected()
                    with Watcher(there.port) as there_sees:
                        there_sees.expect(f"b/here/{payload} {payload}")
                        publish(there.port, "b/there/kept", payload, "-r")
                        here_sees.expect(f"b/there/kept {payload}")
                        publish(server.mqtt, "b/here/end", payload)
                        there_sees.expect(f"b/here/end {payload}")
                        same(last(there.port, "b/there/kept"), payload)
                        same(last(server.mqtt, "b/there/kept"), payload)
                        same(there_sees.lines.count(f"b/there/kept {payload}"), 1)
            for once in ("b/here/event new", "b/here/event newer", "b/here/end new", "b/here/end newer"):
                same(here_sees.lines.count(once), 1)
            kept = [line for line in here_sees.lines if line.startswith("b/there/kept")]
            ages = ["old", "new", "newer"]
            same(kept, sorted(kept, key=lambda line: ages.index(line.split()[1])))


def without_the_bit():
    """A bridge of MQTT 5, which names its options, and one that does not say what it is, to which live messages are live."""
    for extra, keeps in (("bridge_protocol_version mqttv50\n", "1"), ("try_private false\n", None)):
        with tempfile.TemporaryDirectory() as directory, Server() as server:
            with Mosquitto(directory, server.mqtt, extra) as there:
                there.connected()
                with Watcher(there.port) as there_sees:
                    publish(server.mqtt, "b/here", "1", "-r")
                    publish(there.port, "b/there", "2", "-r")
                    there_sees.expect("b/here 1", "b/there 2")
                    until(lambda: last(server.mqtt, "b/there") == "2", "the value here")
                    same(last(there.port, "b/here"), keeps)


def main():
    checks = Checks()
    for check in (both_ways, a_kill_of_latchbus, restarts_of_mosquitto, without_the_bit):
        checks.run(check.__name__, check)
    checks.finish()


main()
