"""gmqtt, aiomqtt and awscrt (the client of AWS IoT's devices), each in what sets it apart, against latchbus."""

import asyncio
import socket
import tempfile
from concurrent.futures import Future

import aiomqtt
import gmqtt
import gmqtt.mqtt.constants
from awscrt import mqtt5

from server import DEADLINE, Checks, Server, same

# One more than what is announced, and what is tolerated.
BURSTS = (257, 4_096)
VERSIONS = {4: gmqtt.mqtt.constants.MQTTv311, 5: gmqtt.mqtt.constants.MQTTv50}


async def until(condition, what):
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.005)


class Gmqtt:
    """A gmqtt client, what it has received, and whether it was cut off."""

    def __init__(self, name):
        self.client = gmqtt.Client(name)
        # It would come back by itself.
        self.client.set_config({"reconnect_retries": 0})
        self.received, self.losses, self.subscribed = [], [], 0
        self.client.on_message = self.message
        self.client.on_disconnect = lambda _client, _packet, error=None: self.losses.append(error)
        self.client.on_subscribe = self.subscribe_answered

    async def message(self, _client, _topic, payload, _qos, _properties):
        self.received.append(payload.decode())
        return 0

    def subscribe_answered(self, *_):
        self.subscribed += 1

    async def connect(self, server, level):
        await self.client.connect("127.0.0.1", server.mqtt, version=VERSIONS[level])
        return self

    async def subscribe(self, topic):
        self.client.subscribe(topic, qos=2)
        await until(lambda: self.subscribed, "SUBACK")


def gmqtt_publishes_all_that_it_has(server, level, burst):
    """At once in 3.1.1. In 5 it fails a publish where the server's Receive Maximum is reached, and is asked again then."""

    async def run():
        reader = await Gmqtt("reader").connect(server, level)
        writer = await Gmqtt("writer").connect(server, level)
        topic, refused = f"burst/{level}/{burst}", 0
        await reader.subscribe(topic)
        sent = [str(number) for number in range(burst)]
        for number in sent:
            while True:
                try:
                    writer.client.publish(topic, number, qos=2)
                    break
                except OverflowError:
                    refused += 1
                    await asyncio.sleep(0.001)
        same(refused > 0, level == 5)
        await until(lambda: len(reader.received) >= burst or writer.losses or reader.losses, "all messages")
        same((writer.losses, reader.losses), ([], []))
        same(reader.received, sent)
        for client in (reader, writer):
            await client.client.disconnect()

    asyncio.run(run())


def aiomqtt_comes_back_and_its_will_says_when_it_is_gone(protocol):
    """Its loop, as its documentation has it, over a kill of the server and a connection that is cut."""

    async def run(server):
        will = aiomqtt.Will("kiosk/status", "offline", 1, True)
        current = []

        async def kiosk():
            while True:
                client = aiomqtt.Client("127.0.0.1", server.mqtt, identifier="kiosk", will=will, protocol=protocol)
                try:
                    async with client:
                        await client.publish("kiosk/status", "online", 1, True)
                        await client.subscribe("kiosk/command", 1)
                        current.append(client)
                        async for message in client.messages:
                            await client.publish("kiosk/answer", message.payload, 1)
                except aiomqtt.MqttError:
                    await asyncio.sleep(0.1)

        async def says(watcher, *expected):
            messages = aiter(watcher.messages)
            for topic, text in expected:
                async with asyncio.timeout(DEADLINE):
                    message = await anext(messages)
                same((str(message.topic), message.payload.decode()), (topic, text))

        task = asyncio.create_task(kiosk())
        await until(lambda: current, "the kiosk")
        server.kill()
        await until(lambda: len(current) > 1, "the kiosk, after the kill")
        async with aiomqtt.Client("127.0.0.1", server.mqtt, protocol=protocol) as watcher:
            await watcher.subscribe("kiosk/+", 1)
            await says(watcher, ("kiosk/status", "online"))
            # There is no call for a cut: only for a goodbye.
            current[-1]._client.socket().shutdown(socket.SHUT_RDWR)
            await says(watcher, ("kiosk/status", "offline"), ("kiosk/status", "online"))
            await until(lambda: len(current) > 2, "the kiosk, after the cut")
            await watcher.publish("kiosk/command", "open", 1)
            await says(watcher, ("kiosk/command", "open"), ("kiosk/answer", "open"))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    with tempfile.TemporaryDirectory() as directory, Server(directory) as server:
        server.keep_ports()
        asyncio.run(run(server))


class Awscrt:
    """An MQTT 5 client of the AWS Common Runtime, and what it has received."""

    def __init__(self, server, name, receive_maximum=None, aliases=None):
        self.received, self.connack, self.stopped, self.failures = [], Future(), Future(), []
        self.client = mqtt5.Client(
            mqtt5.ClientOptions(
                host_name="127.0.0.1",
                port=server.mqtt,
                connect_options=mqtt5.ConnectPacket(client_id=name, receive_maximum=receive_maximum),
                topic_aliasing_options=aliases,
                on_publish_callback_fn=lambda data: self.received.append(data.publish_packet),
                on_lifecycle_event_connection_success_fn=lambda data: self.connack.set_result(data.connack_packet),
                on_lifecycle_event_connection_failure_fn=lambda data: self.failures.append(data.exception),
                on_lifecycle_event_disconnection_fn=lambda data: self.failures.append(data.exception),
                on_lifecycle_event_stopped_fn=lambda _data: self.stopped.set_result(None),
            )
        )
        self.client.start()
        self.connack.result(DEADLINE)

    def subscribe(self, topic):
        wanted = mqtt5.SubscribePacket([mqtt5.Subscription(topic, mqtt5.QoS.AT_LEAST_ONCE)])
        same([int(code) for code in self.client.subscribe(wanted).result(DEADLINE).reason_codes], [1])

    def publish(self, topic, payload):
        return self.client.publish(mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE))

    def expect(self, *expected):
        asyncio.run(until(lambda: len(self.received) >= len(expected), expected))
        same([(it.topic, it.payload.decode()) for it in self.received], list(expected))

    def stop(self):
        same(self.failures, [])
        self.client.stop()
        self.stopped.result(DEADLINE)


def awscrt_with_topic_aliases(server):
    """Both ways, with more topics than there are aliases."""
    aliases = mqtt5.TopicAliasingOptions(
        outbound_behavior=mqtt5.OutboundTopicAliasBehaviorType.LRU,
        outbound_cache_max_size=4,
        inbound_behavior=mqtt5.InboundTopicAliasBehaviorType.ENABLED,
        inbound_cache_max_size=4,
    )
    client = Awscrt(server, "aliases", aliases=aliases)
    same(client.connack.result().topic_alias_maximum, 16)
    client.subscribe("aliases/#")
    sent = [(f"aliases/{number * number % 7}", str(number)) for number in range(100)]
    for acknowledged in [client.publish(topic, payload) for topic, payload in sent]:
        acknowledged.result(DEADLINE)
    client.expect(*sent)
    client.stop()


def awscrt_keeps_to_the_receive_maximum(server):
    """A thousand at once: it waits for the server, and the server for it."""
    writer = Awscrt(server, "flow-writer")
    reader = Awscrt(server, "flow-reader", receive_maximum=2)
    same(writer.connack.result().receive_maximum, 256)
    reader.subscribe("flow")
    sent = [("flow", str(number)) for number in range(1_000)]
    for acknowledged in [writer.publish(topic, payload) for topic, payload in sent]:
        same(int(acknowledged.result(DEADLINE).puback.reason_code), 0)
    reader.expect(*sent)
    for client in (reader, writer):
        client.stop()


def main():
    checks = Checks()
    with Server() as server:
        for level in VERSIONS:
            for burst in BURSTS:
                checks.run(f"gmqtt {level}: {burst} at once", gmqtt_publishes_all_that_it_has, server, level, burst)
        checks.run("awscrt: topic aliases", awscrt_with_topic_aliases, server)
        checks.run("awscrt: flow control", awscrt_keeps_to_the_receive_maximum, server)
    for protocol in (aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5):
        checks.run(f"aiomqtt {protocol.name}", aiomqtt_comes_back_and_its_will_says_when_it_is_gone, protocol)
    checks.finish()


main()
