"""mosquitto_pub and mosquitto_sub, 3.1.1 and 5, against latchbus."""

import socket
import subprocess
import tempfile
import threading

from server import DEADLINE, Checks, Server, same, until

RETAINED = 10_000
ROUNDS = 50


class Subscriber:
    """A mosquitto_sub whose lines are collected; ready once it has its SUBACK."""

    def __init__(self, server, version, *arguments):
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(server.mqtt), "-V", version, "-d", *arguments]
        self.process = subprocess.Popen(["stdbuf", "-oL", *command], stdout=subprocess.PIPE, text=True)
        self.lines, self.debug = [], []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        until(lambda: any("SUBACK" in line for line in self.debug), "SUBACK")

    def read(self):
        for line in self.process.stdout:
            line = line.rstrip("\n")
            is_debug = line.startswith(("Client ", "Subscribed "))
            (self.debug if is_debug else self.lines).append(line)

    def expect(self, *lines):
        until(lambda: len(self.lines) >= len(lines), f"{lines}, but {self.lines}")
        same(self.lines, list(lines))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def publish(server, version, *arguments):
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(server.mqtt), "-V", version, *arguments]
    subprocess.run(command, check=True, timeout=DEADLINE)


def take(server, version, *arguments):
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(server.mqtt), "-V", version, *arguments]
    done = subprocess.run(command, check=True, timeout=DEADLINE, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()


def each_quality(server, version):
    topic = f"quality/{version}"
    for qos in "012":
        with Subscriber(server, version, "-t", topic, "-q", qos, "-F", "%q %p") as subscriber:
            for published in "012":
                publish(server, version, "-t", topic, "-q", published, "-m", f"at {published}")
            granted = [min(qos, published) for published in "012"]
            subscriber.expect(*(f"{q} at {p}" for q, p in zip(granted, "012")))


def retained(server, version):
    topic = f"retained/{version}/é"
    publish(server, version, "-t", topic, "-r", "-q", "1", "-m", "first")
    publish(server, version, "-t", topic, "-r", "-q", "1", "-m", "second")
    publish(server, version, "-t", topic, "-n")
    same(take(server, version, "-t", f"retained/{version}/+", "-C", "1", "-F", "%r %p"), ["1 second"])
    with Subscriber(server, version, "-t", topic, "-F", "%r %p") as subscriber:
        publish(server, version, "-t", topic, "-r", "-m", "live")
        subscriber.expect("1 second", "0 live")
    publish(server, version, "-t", topic, "-r", "-n")
    with Subscriber(server, version, "-t", topic, "-F", "%r %p") as subscriber:
        publish(server, version, "-t", topic, "-m", "event")
        subscriber.expect("0 event")


def will(server, version):
    topic = f"will/{version}"
    arguments = ["--will-topic", topic, "--will-payload", "gone", "--will-retain", "--will-qos", "1"]
    with Subscriber(server, version, "-t", "nothing/here", *arguments):
        pass
    same(take(server, version, "-t", topic, "-C", "1"), ["gone"])
    # A client that says goodbye has none.
    publish(server, version, "-t", topic, "-r", "-n")
    publish(server, version, "-t", "x", "-m", "x", "--will-topic", topic, "--will-payload", "gone")
    with Subscriber(server, version, "-t", topic) as subscriber:
        publish(server, version, "-t", topic, "-m", "event")
        subscriber.expect("event")


def persistent(server, version):
    topic, client = f"persistent/{version}", ["-i", f"sleeper-{version}", "-c"]
    if version == "mqttv5":
        client += ["-x", "300"]
    take(server, version, *client, "-t", topic, "-q", "2", "-E")
    numbers = [str(number) for number in range(200)]
    for number in numbers[:3]:
        publish(server, version, "-t", topic, "-q", "2", "-m", number)
    lines = "".join(number + "\n" for number in numbers[3:])
    command = ["mosquitto_pub", "-p", str(server.mqtt), "-V", version, "-t", topic, "-q", "2", "-l"]
    subprocess.run(command, check=True, timeout=DEADLINE, input=lines, text=True)
    same(take(server, version, *client, "-t", topic, "-q", "2", "-C", "200"), numbers)
    # Ended, it is forgotten.
    end = [part for part in client if part not in ("-c", "-x", "300")]
    take(server, version, *end, "-t", topic, "-E")
    publish(server, version, "-t", topic, "-q", "1", "-m", "lost")
    with Subscriber(server, version, *client, "-t", topic, "-q", "1") as subscriber:
        publish(server, version, "-t", topic, "-q", "1", "-m", "new")
        subscriber.expect("new")


def over_a_kill(version):
    """What a persistent session is owed outlives the server."""
    topic, client = "over/a/kill", ["-i", "sleeper", "-c"]
    if version == "mqttv5":
        client += ["-x", "300"]
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory).__enter__()
        try:
            take(server, version, *client, "-t", topic, "-q", "2", "-E")
            numbers = [str(number) for number in range(200)]
            lines = "".join(number + "\n" for number in numbers)
            command = ["mosquitto_pub", "-p", str(server.mqtt), "-V", version, "-t", topic, "-q", "2", "-l"]
            subprocess.run(command, check=True, timeout=DEADLINE, input=lines, text=True)
            server = server.kill()
            same(take(server, version, *client, "-t", topic, "-q", "2", "-C", "200"), numbers)
            server = server.kill()
            publish(server, version, "-t", topic, "-q", "1", "-m", "after")
            same(take(server, version, *client, "-t", topic, "-q", "2", "-C", "1"), ["after"])
        finally:
            server.__exit__()


def takeover(server, version):
    client = ["-i", f"twin-{version}"]
    with Subscriber(server, version, *client, "-t", "twins", "--will-topic", "twins/will", "--will-payload", "x") as first:
        with Subscriber(server, version, "-t", "twins/will") as watcher:
            with Subscriber(server, version, *client, "-t", "twins") as second:
                watcher.expect("x")
                publish(server, version, "-t", "twins", "-m", "both?")
                second.expect("both?")
                first.process.terminate()


def properties_5(server):
    said = ["-D", "publish", "user-property", "a", "1", "-D", "publish", "content-type", "text/plain"]
    said += ["-D", "publish", "response-topic", "answers", "-D", "publish", "correlation-data", "c"]
    said += ["-D", "publish", "payload-format-indicator", "1", "-D", "publish", "message-expiry-interval", "60"]
    publish(server, "mqttv5", "-t", "said", "-r", "-q", "1", "-m", "x", *said)
    found = take(server, "mqttv5", "-t", "said", "-C", "1", "-F", "%P|%C|%R|%D|%F|%p")
    same(found, ["a:1|text/plain|answers|c|1|x"])
    left = int(take(server, "mqttv5", "-t", "said", "-C", "1", "-F", "%E")[0])
    assert 50 <= left <= 60, left
    # Its properties must not reach a client of 3.1.1 (which ended another broker).
    same(take(server, "mqttv311", "-t", "said", "-C", "1"), ["x"])


def options_5(server):
    identified = ["-D", "subscribe", "subscription-identifier", "7"]
    with Subscriber(server, "mqttv5", "-t", "options", *identified, "-F", "%S %p") as subscriber:
        publish(server, "mqttv5", "-t", "options", "-m", "x")
        subscriber.expect("7 x")
    publish(server, "mqttv5", "-t", "options", "-r", "-m", "kept")
    with Subscriber(server, "mqttv5", "-t", "options", "--retain-as-published", "-F", "%r %p") as s:
        publish(server, "mqttv5", "-t", "options", "-r", "-m", "live")
        publish(server, "mqttv5", "-t", "options", "-m", "event")
        s.expect("1 kept", "1 live", "0 event")
    asking = ["-D", "subscribe", "user-property", "latchbus-rev", "", "-D", "subscribe", "user-property", "latchbus-at", ""]
    found = take(server, "mqttv5", "-t", "options", "-C", "1", *asking, "-F", "%P")[0]
    assert "latchbus-rev:" in found and "latchbus-at:" in found, found


def shared_5(server):
    first = Subscriber(server, "mqttv5", "-t", "$share/group/shared", "-q", "1")
    second = Subscriber(server, "mqttv5", "-t", "$share/group/shared", "-q", "1")
    with first, second:
        for number in range(10):
            publish(server, "mqttv5", "-t", "shared", "-q", "1", "-m", str(number))
        until(lambda: len(first.lines) + len(second.lines) >= 10, "all messages")
        same(sorted(first.lines + second.lines), [str(number) for number in range(10)])
        assert first.lines and second.lines, "one has taken all"


def expiry_5(server):
    said = ["-D", "publish", "message-expiry-interval", "1"]
    publish(server, "mqttv5", "-t", "expiring", "-r", "-m", "old", *said)
    def is_gone():
        with Subscriber(server, "mqttv5", "-t", "expiring") as subscriber:
            publish(server, "mqttv5", "-t", "expiring", "-m", "event")
            until(lambda: "event" in subscriber.lines, "the event")
            return subscriber.lines == ["event"]
    until(is_gone, "the expiry")


def fill(server):
    # mosquitto_pub sends to one topic only: it would take 10,000 of them.
    with socket.create_connection(("127.0.0.1", server.mqtt), DEADLINE) as connection:
        connection.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
        for number in range(RETAINED):
            topic = f"many/{number}".encode()
            body = len(topic).to_bytes(2, "big") + topic + str(number).encode()
            connection.sendall(bytes([0x31, len(body)]) + body)
        connection.sendall(b"\xc0\x00")
        expected, answer = b"\x20\x02\x00\x00\xd0\x00", b""
        while len(answer) < len(expected):
            answer += connection.recv(64)
        same(answer, expected)


def whole_snapshot(server, version, qos):
    expected = sorted(f"many/{number} {number}" for number in range(RETAINED))
    for _ in range(ROUNDS):
        found = take(server, version, "-t", "many/#", "-v", "-q", qos, "-C", str(RETAINED))
        same(len(found), RETAINED)
        same(sorted(found), expected)


def main():
    checks = Checks()
    for version in ("mqttv311", "mqttv5"):
        checks.run(f"over_a_kill {version}", over_a_kill, version)
    with Server() as server:
        for version in ("mqttv311", "mqttv5"):
            for check in (each_quality, retained, will, persistent, takeover):
                checks.run(f"{check.__name__} {version}", check, server, version)
        for check in (properties_5, options_5, shared_5, expiry_5):
            checks.run(check.__name__, check, server)
        checks.run("fill", fill, server)
        for version in ("mqttv311", "mqttv5"):
            for qos in "012":
                name = f"{RETAINED} retained topics, {ROUNDS} times, {version}, QoS {qos}"
                checks.run(name, whole_snapshot, server, version, qos)
    checks.finish()


main()
