"""paho-mqtt, 3.1.1 and 5, over TCP and WebSocket, with TLS and without, against latchbus."""

import collections
import os
import signal
import socket
import ssl
import tempfile
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from server import DEADLINE, Checks, Server, same, until

RETAINED = 10_000
# As many as are tolerated at once.
BURST = 4_096
# So many publish while the certificate is replaced; 200 take ten seconds on a quiet machine.
CROWD = int(os.environ.get("CROWD", "40"))


class Client:
    """A paho client with its loop in a thread, and what it has received."""

    def __init__(self, server, kind, name, clean=True, will=None, expiry=300, inflight=20):
        version, transport = kind
        self.five = version == 5
        protocol = mqtt.MQTTv5 if self.five else mqtt.MQTTv311
        options = {} if self.five else {"clean_session": clean}
        over_websocket = transport in ("websockets", "wss")
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=protocol,
            transport="websockets" if over_websocket else "tcp",
            **options,
        )
        if transport in ("tls", "wss"):
            self.paho.tls_set_context(server.trust)
        self.paho.max_inflight_messages_set(inflight)
        if over_websocket:
            self.paho.ws_set_options(path="/mqtt")
        self.received, self.subscribed, self.connacks, self.losses = [], [], [], []
        self.paho.on_message = lambda _client, _data, message: self.received.append(message)
        self.paho.on_subscribe = lambda _client, _data, _id, codes, _properties: self.subscribed.append(codes)
        self.paho.on_connect = lambda _client, _data, flags, code, _properties: self.connacks.append((flags, code))
        self.paho.on_disconnect = lambda _client, _data, _flags, code, _properties: self.losses.append(code)
        if will:
            self.paho.will_set(*will)
        connect = {}
        if self.five:
            connect["clean_start"] = clean
            connect["properties"] = Properties(PacketTypes.CONNECT)
            if not clean:
                connect["properties"].SessionExpiryInterval = expiry
        port = {"tcp": "mqtt", "websockets": "http", "tls": "mqtts", "wss": "https"}[transport]
        self.paho.connect("127.0.0.1", getattr(server, port), **connect)
        self.paho.loop_start()
        until(lambda: self.connacks, "CONNACK")
        flags, code = self.connacks[0]
        assert not code.is_failure, code
        self.session_present = flags.session_present

    def subscribe(self, topic, qos=0, **options):
        before = len(self.subscribed)
        if self.five:
            properties = options.pop("properties", None)
            self.paho.subscribe(topic, options=SubscribeOptions(qos=qos, **options), properties=properties)
        else:
            self.paho.subscribe(topic, qos)
        until(lambda: len(self.subscribed) > before, "SUBACK")
        return self.subscribed[-1][0].value

    def publish(self, topic, payload, qos=0, retain=False, properties=None):
        self.paho.publish(topic, payload, qos, retain, properties).wait_for_publish(DEADLINE)

    def expect(self, *messages):
        until(lambda: len(self.received) >= len(messages), f"{messages} but {self.texts()}")
        same(self.texts(), list(messages))
        self.received.clear()

    def texts(self):
        return [message.payload.decode() for message in self.received]

    def cut(self):
        """Ends the connection as a network does."""
        self.paho.on_disconnect = None
        self.paho.loop_stop()
        socket = self.paho.socket()
        if socket:
            socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.paho.disconnect()
        self.paho.loop_stop()


def each_quality(server, kind):
    with Client(server, kind, "quality") as client:
        for qos in range(3):
            same(client.subscribe("quality", qos), qos)
            for published in range(3):
                client.publish("quality", f"{qos} {published}", published)
            client.expect(*(f"{qos} {published}" for published in range(3)))


def retained(server, kind):
    topic = f"retained/{kind[0]}/{kind[1]}/é"
    with Client(server, kind, "writer") as writer, Client(server, kind, "reader") as reader:
        writer.publish(topic, "first", 1, True)
        writer.publish(topic, "second", 1, True)
        reader.subscribe(topic, 1)
        until(lambda: reader.received, "the retained message")
        assert reader.received[0].retain
        reader.expect("second")
        reader.subscribe(topic, 1)
        reader.expect("second")
        writer.publish(topic, "third", 1, True)
        until(lambda: reader.received, "the live message")
        assert not reader.received[0].retain
        reader.expect("third")
        writer.publish(topic, "", 1, True)
        reader.expect("")
        reader.subscribe(topic, 1)
        writer.publish(topic, "event", 1)
        reader.expect("event")


def will(server, kind):
    with Client(server, kind, "watcher") as watcher:
        watcher.subscribe("will/#", 2)
        with Client(server, kind, "polite", will=("will/polite", "gone", 1, False)):
            pass
        Client(server, kind, "cut", will=("will/cut", "gone", 1, False)).cut()
        watcher.expect("gone")


def persistent(server, kind):
    name = f"persistent-{kind[0]}-{kind[1]}"
    with Client(server, kind, name, clean=False) as first:
        assert not first.session_present
        first.subscribe(name, 2)
    numbers = [str(number) for number in range(300)]
    with Client(server, kind, "publisher") as publisher:
        for number in numbers:
            publisher.paho.publish(name, number, 2)
        publisher.publish(name, "end", 2)
    with Client(server, kind, name, clean=False) as second:
        assert second.session_present
        second.expect(*numbers, "end")
    with Client(server, kind, name, clean=True) as third:
        assert not third.session_present


def over_a_kill(kind):
    """What a persistent session is owed outlives the server, and comes once at QoS 2."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory).__enter__()
        try:
            with Client(server, kind, "sleeper", clean=False) as first:
                first.subscribe("over/a/kill", 2)
            numbers = [str(number) for number in range(300)]
            with Client(server, kind, "publisher") as publisher:
                for number in numbers:
                    publisher.paho.publish("over/a/kill", number, 2)
                publisher.publish("over/a/kill", "end", 2)
            server = server.kill()
            with Client(server, kind, "sleeper", clean=False) as second:
                assert second.session_present
                second.expect(*numbers, "end")
            server = server.kill()
            with Client(server, kind, "sleeper", clean=False) as third:
                assert third.session_present
                third.publish("over/a/kill", "after", 2)
                third.expect("after")
        finally:
            server.__exit__()


def takeover(server, kind):
    first = Client(server, kind, "twin")
    # paho would come back and take the name in its turn.
    first.paho.reconnect_delay_set(60, 60)
    with Client(server, kind, "twin") as second:
        until(lambda: first.losses, "the end of the first")
        if kind[0] == 5:
            same(first.losses[0].value, 0x8E)
        second.subscribe("twin")
        second.publish("twin", "x")
        second.expect("x")
    first.cut()


def snapshot(server, kind):
    with Client(server, (3, "tcp"), "filler") as filler:
        for number in range(RETAINED):
            filler.paho.publish(f"many/{number}", str(number), 1, True)
        filler.publish("many/last", "last", 1, True)
    for qos in range(3):
        with Client(server, kind, f"many-{qos}") as client:
            client.subscribe("many/#", qos)
            until(lambda: len(client.received) > RETAINED, "the snapshot")
            same({message.topic for message in client.received}, {"many/last", *(f"many/{n}" for n in range(RETAINED))})
            same(len(client.received), RETAINED + 1)


def request_response_5(server, transport):
    kind = (5, transport)
    with Client(server, kind, "asker") as asker, Client(server, kind, "answerer") as answerer:
        asker.subscribe("answers/asker", 1)
        answerer.subscribe("questions", 1)
        asked = Properties(PacketTypes.PUBLISH)
        asked.ResponseTopic, asked.CorrelationData = "answers/asker", b"\x00\xff"
        asked.UserProperty = [("a", "1"), ("a", "2")]
        asker.publish("questions", "?", 1, properties=asked)
        until(lambda: answerer.received, "the question")
        question = answerer.received[0].properties
        same(question.UserProperty, [("a", "1"), ("a", "2")])
        answer = Properties(PacketTypes.PUBLISH)
        answer.CorrelationData = question.CorrelationData
        answerer.publish(question.ResponseTopic, "!", 1, properties=answer)
        until(lambda: asker.received, "the answer")
        same(asker.received[0].properties.CorrelationData, b"\x00\xff")


def options_5(server, transport):
    with Client(server, (5, transport), "options") as client:
        client.subscribe("options/#", 1, noLocal=True)
        client.publish("options/a", "own", 1)
        with Client(server, (5, transport), "other") as other:
            other.publish("options/a", "other", 1)
            other.publish("options/kept", "kept", 1, True)
        client.expect("other", "kept")
        client.subscribe("options/+", 1, retainHandling=2, retainAsPublished=True)
        client.publish("options/kept", "again", 1, True)
        until(lambda: client.received, "the message")
        assert client.received[0].retain
        client.expect("again")
        identified = Properties(PacketTypes.SUBSCRIBE)
        identified.SubscriptionIdentifier = 300000
        client.subscribe("options/kept", 1, properties=identified)
        until(lambda: client.received, "the retained message")
        same(client.received[0].properties.SubscriptionIdentifier, [300000])
        client.publish("options/kept", "", 1, True)


def refused_5(server, transport):
    with Client(server, (5, transport), "refused") as client:
        codes = []
        client.paho.on_publish = lambda _client, _data, _id, code, _properties: codes.append(code.value)
        client.paho.publish("clicks/main/values", "{}", 1)
        until(lambda: codes, "the answer")
        same(codes, [0x87])
        same(client.subscribe("l" * 2000, 1), 0x8F)


def burst(server, kind):
    """More at once than the receive maximum, which paho does not look at. Many take it seconds."""
    many = BURST if kind[1] == "tcp" else 257
    name = f"burst-{kind[0]}-{kind[1]}"
    with Client(server, kind, name + "-reader") as reader, Client(server, kind, name, inflight=many) as writer:
        reader.subscribe(name, 2)
        sent = [str(number) for number in range(many)]
        pending = [writer.paho.publish(name, number, 2) for number in sent]
        for message in pending:
            message.wait_for_publish(DEADLINE)
        same(writer.losses, [])
        reader.expect(*sent)


def through_a_cut(server, kind):
    """QoS 2 with a connection that ends in the middle: each message once."""
    name = f"cuts-{kind[0]}-{kind[1]}"
    with Client(server, kind, name + "-reader") as reader:
        reader.subscribe(name, 2)
        writer = Client(server, kind, name, clean=False)
        writer.paho.reconnect_delay_set(1, 1)
        sent = [str(number) for number in range(500)]
        def cuts():
            for _ in range(3):
                time.sleep(0.05)
                socket = writer.paho.socket()
                if socket:
                    try:
                        socket.shutdown(2)
                    except (OSError, AttributeError):
                        pass
                time.sleep(1.2)
        cutting = threading.Thread(target=cuts)
        cutting.start()
        for number in sent:
            writer.paho.publish(name, number, 2)
            time.sleep(0.005)
        cutting.join()
        until(lambda: len(reader.received) >= len(sent), "all messages")
        same(sorted(reader.texts(), key=int), sent)
        writer.__exit__()


def strangers(server, version):
    """A client that does not trust the server's authority has no connection."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5 if version == 5 else mqtt.MQTTv311)
    client.tls_set()
    try:
        client.connect("127.0.0.1", server.mqtts)
    except ssl.SSLCertVerificationError:
        return
    raise AssertionError("it has connected")


def certificate(server, port):
    """That a new connection sees, which has to be trusted."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as plain:
        with server.trust.wrap_socket(plain, server_hostname="127.0.0.1") as stream:
            return stream.getpeercert(binary_form=True)


def replaced(server):
    """The certificate is replaced while many publish: no connection ends, no message is lost, and new ones see the new one."""
    counts, acknowledged, stop = collections.Counter(), collections.Counter(), threading.Event()

    def keep_publishing(client, name):
        def publish():
            counts[name] += 1
            client.paho.publish(f"crowd/{name}", str(counts[name]), 1)

        def published(*_):
            if not stop.is_set():
                publish()
            acknowledged[name] += 1

        client.paho.on_publish = published
        publish()

    def all_publish(more):
        before = {name: acknowledged[name] for name in counts}
        until(lambda: all(acknowledged[name] >= before[name] + more for name in before), "messages of all")

    def show(what, before):
        for port in (server.mqtts, server.https):
            until(lambda: (certificate(server, port) == before) == (what == "the old one"), f"{what} on {port}")

    kinds = [(version, transport) for version in (3, 5) for transport in ("tls", "wss")]
    with Client(server, (5, "tls"), "crowd-reader") as reader:
        reader.subscribe("crowd/+", 1)
        crowd = {str(number): Client(server, kinds[number % 4], f"crowd-{number}") for number in range(CROWD)}
        for name, client in crowd.items():
            keep_publishing(client, name)
        all_publish(2)
        old = certificate(server, server.mqtts)
        new_certificate, new_key = server.new_certificate()
        # Half of a pair, as between two files that are replaced one after the other.
        os.replace(new_certificate, server.certificate)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "stays as it is" in "".join(server.log), "the half is refused")
        show("the old one", old)
        all_publish(2)
        # Nobody tells the server this time.
        os.replace(new_key, server.key)
        show("the new one", old)
        all_publish(2)
        stop.set()
        until(lambda: acknowledged == counts, "the last acknowledgements")
        until(lambda: len(reader.received) >= sum(counts.values()), "all messages")
        received = collections.defaultdict(list)
        for message in reader.received:
            received[message.topic.removeprefix("crowd/")].append(int(message.payload))
        for name, client in crowd.items():
            same((client.losses, len(client.connacks)), ([], 1))
            same(received[name], list(range(1, counts[name] + 1)))
            client.__exit__()
        same((reader.losses, len(reader.connacks)), ([], 1))


def main():
    checks = Checks()
    for version in (3, 5):
        checks.run(f"over_a_kill {version}", over_a_kill, (version, "tcp"))
    with tempfile.TemporaryDirectory() as tls, Server(tls=tls) as server:
        for version in (3, 5):
            for transport in ("tls", "wss"):
                for check in (each_quality, retained, will, persistent, burst):
                    checks.run(f"{check.__name__} {version} {transport}", check, server, (version, transport))
            checks.run(f"strangers {version}", strangers, server, version)
        checks.run("snapshot 3 tls", snapshot, server, (3, "tls"))
        checks.run(f"replaced while {CROWD} publish", replaced, server)
    with Server() as server:
        for version in (3, 5):
            for transport in ("tcp", "websockets"):
                kind = (version, transport)
                for check in (each_quality, retained, will, persistent, takeover, snapshot, burst):
                    checks.run(f"{check.__name__} {version} {transport}", check, server, kind)
                if transport == "tcp":
                    checks.run(f"through_a_cut {version}", through_a_cut, server, kind)
        for transport in ("tcp", "websockets"):
            for check in (request_response_5, options_5, refused_5):
                checks.run(f"{check.__name__} {transport}", check, server, transport)
    checks.finish()


main()
