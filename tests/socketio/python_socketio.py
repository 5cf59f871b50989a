"""python-socketio over WebSocket, over polls, and with the upgrade, against latchbus."""

import base64
import os
import subprocess
import tempfile

import socketio

from server import DEADLINE, Checks, Server, same, until


class Client:
    """A client in a thread of its own, and what it has received."""

    def __init__(self, server, transports, **options):
        self.received = []
        self.socket = socketio.Client(reconnection=False)
        self.socket.on("*", lambda event, *arguments: self.received.append((event, arguments)))
        self.socket.connect(f"http://127.0.0.1:{server.http}", transports=transports, wait_timeout=DEADLINE, **options)

    def call(self, event, *arguments):
        return self.socket.call(event, arguments, timeout=DEADLINE)

    def named(self, wanted):
        return [arguments for event, arguments in list(self.received) if event == wanted]

    def shows(self, red, blue):
        expected = {"red": red, "blue": blue}
        until(lambda: self.named("clickValues") and self.named("clickValues")[-1][0] == expected, expected)

    def close(self):
        self.socket.disconnect()


def tutorial(transports):
    with Server() as server:
        one, other = Client(server, transports), Client(server, transports)
        one.shows(0, 0)
        one.socket.emit("redClicked")
        one.shows(1, 0)
        other.shows(1, 0)
        for _ in range(3):
            assert isinstance(other.call("blueClicked", "the same")["rev"], int)
        one.shows(1, 1)
        late = Client(server, transports)
        late.shows(1, 1)
        for client in (one, other, late):
            client.close()


def general_events(transports):
    with Server() as server:
        client = Client(server, transports)
        same(client.call("subscribe", "lab/#", {"mode": "every"}), {})
        until(lambda: client.named("synced"), "synced")
        sent = [21.5, "hello", {"c": [1, None, True]}, "é", "", None, bytes([0, 1, 255])]
        revs = [client.call("publish", "lab/x", payload)["rev"] for payload in sent]
        until(lambda: len(client.named("message")) == len(sent), "every message")
        messages = client.named("message")
        same([message[1] for message in messages], sent)
        same([message[2]["rev"] for message in messages], revs)
        same(client.call("publish", "clicks/main/values", 1)["error"]["code"], "not_allowed")
        same(client.call("publish", "lab/large", "x" * ((1 << 20) + 1))["error"]["code"], "too_large")
        same(client.call("unsubscribe", "lab/#"), {})
        client.close()


def large_snapshot(transports):
    """Its decoder takes no body of more than 16 packets."""
    with Server() as server:
        client = Client(server, transports)
        for number in range(100):
            client.call("publish", f"many/{number}", number, {"retain": True})
        reader = Client(server, transports)
        same(reader.call("subscribe", "many/#"), {})
        until(lambda: reader.named("synced"), "synced")
        same(sorted(message[1] for message in reader.named("message")), list(range(100)))
        for one in (client, reader):
            one.close()


def unknown_namespace(transports):
    with Server() as server:
        client = socketio.Client(reconnection=False)
        try:
            client.connect(f"http://127.0.0.1:{server.http}", transports=transports, namespaces=["/nowhere"])
        except socketio.exceptions.ConnectionError:
            pass
        else:
            raise AssertionError("it has joined a namespace that is not there")
        client.disconnect()


def signing_in(transports):
    """By a header, which it sends with the handshake and leaves out of polls, and by CONNECT. Who is refused is told why."""
    with tempfile.TemporaryDirectory() as directory:
        users, settings = os.path.join(directory, "users"), os.path.join(directory, "latchbus.toml")
        add = [os.environ["LATCHBUS"], "user", "add", "anna", "--file", users, "--password-stdin"]
        subprocess.run(add, input="correct horse\n", text=True, check=True, stdout=subprocess.DEVNULL)
        with open(settings, "w") as file:
            file.write(f'users = "{users}"\n')
        with Server(settings=settings) as server:
            pair = base64.b64encode(b"anna:correct horse").decode()
            by_header = {"headers": {"Authorization": f"Basic {pair}"}}
            for way in (by_header, {"auth": {"user": "anna", "password": "correct horse"}}):
                client = Client(server, transports, **way)
                client.shows(0, 0)
                for _ in range(3):
                    assert isinstance(client.call("publish", "lab/x", 1)["rev"], int)
                client.close()
            for auth, message in (
                (None, "credentials are required"),
                ({"user": "anna", "password": "wrong"}, "bad user name, password or token"),
            ):
                refused, client = [], socketio.Client(reconnection=False)
                client.on("connect_error", refused.append)
                try:
                    client.connect(f"http://127.0.0.1:{server.http}", transports=transports, auth=auth, wait_timeout=DEADLINE)
                except socketio.exceptions.ConnectionError:
                    pass
                else:
                    raise AssertionError(f"{auth} is let in")
                same(refused, [{"message": message, "data": {"code": "unauthorized"}}])
                client.disconnect()


checks = Checks()
for way in (["websocket"], ["polling"], ["polling", "websocket"]):
    for check in (tutorial, general_events, large_snapshot, unknown_namespace, signing_in):
        checks.run(f"{check.__name__}, {' then '.join(way)}", check, way)
checks.finish()
