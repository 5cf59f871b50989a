"""Users, tokens and rules: mosquitto_pub and mosquitto_sub, paho-mqtt and curl against latchbus."""

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import tempfile
import time

import paho.mqtt.client as mqtt
from paho.mqtt.subscribeoptions import SubscribeOptions

from server import DEADLINE, Checks, Server, same, until

KEY = "0123456789abcdef0123456789abcdef"
SETTINGS = """
users = "{folder}/users"
[tokens]
keys = "{folder}/key"
leeway_secs = 0
[access]
signed_in = ["member"]
[access.users]
bea = ["reader"]
[access.roles.member]
publish = ["open/#"]
subscribe = ["open/#"]
[access.roles.reader]
subscribe = ["open/#", "closed/#"]
"""
VERSIONS = ("mqttv311", "mqttv5")
BAD_CREDENTIALS = {"mqttv311": 4, "mqttv5": 0x86}
NOT_AUTHORIZED = {"mqttv311": 5, "mqttv5": 0x87}


def user(directory, *words, password=None):
    command = [os.environ["LATCHBUS"], "user", *words, "--file", f"{directory}/users"]
    subprocess.run(command, check=True, timeout=DEADLINE, input=password, text=True, stdout=subprocess.DEVNULL)


class Guarded:
    """A server with two users, tokens and rules."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        name = self.folder.name
        for who in ("anna", "bea"):
            user(name, "add", who, "--password-stdin", password="secret\n")
        for file, text in (("key", KEY), ("latchbus.toml", SETTINGS.format(folder=name))):
            with open(f"{name}/{file}", "w", encoding="utf-8") as out:
                out.write(text)
        self.server = Server(settings=f"{name}/latchbus.toml").__enter__()
        return self

    def remove(self, who):
        user(self.folder.name, "remove", who)
        self.server.process.send_signal(signal.SIGHUP)

    def __exit__(self, *arguments):
        self.server.__exit__(*arguments)
        self.folder.cleanup()


def token(subject, lasts):
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"sub": subject, "exp": int(time.time()) + lasts}
    text = b".".join(part(json.dumps(it).encode()) for it in ({"alg": "HS256"}, claims))
    return (text + b"." + part(hmac.new(KEY.encode(), text, hashlib.sha256).digest())).decode()


class Client:
    """A paho client, and what became of it."""

    def __init__(self, guarded, version, name, who=None, password=None, transport="tcp"):
        self.five = version == "mqttv5"
        protocol = mqtt.MQTTv5 if self.five else mqtt.MQTTv311
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol, transport=transport,
            reconnect_on_failure=False,
        )
        if transport == "websockets":
            self.paho.ws_set_options(path="/mqtt")
        if who is not None:
            self.paho.username_pw_set(who, password)
        self.received, self.granted, self.connacks, self.losses, self.acks = [], [], [], [], []
        self.paho.on_message = lambda _client, _data, message: self.received.append(message.topic)
        self.paho.on_subscribe = lambda _client, _data, _id, codes, _properties: self.granted.append(codes[0].value)
        self.paho.on_connect = lambda _client, _data, _flags, code, _properties: self.connacks.append(code)
        self.paho.on_disconnect = lambda _client, _data, _flags, code, _properties: self.losses.append(code)
        self.paho.on_publish = lambda _client, _data, _id, code, _properties: self.acks.append(code.value)
        port = guarded.server.http if transport == "websockets" else guarded.server.mqtt
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        until(lambda: self.connacks, "CONNACK")

    def subscribe(self, topic):
        before = len(self.granted)
        options = {"options": SubscribeOptions(qos=1)} if self.five else {"qos": 1}
        self.paho.subscribe(topic, **options)
        until(lambda: len(self.granted) > before, "SUBACK")
        return self.granted[-1]

    def publish(self, topic):
        before = len(self.acks)
        self.paho.publish(topic, "x", 1)
        until(lambda: len(self.acks) > before, "PUBACK")
        return self.acks[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.paho.disconnect()
        self.paho.loop_stop()


def refused(guarded, version, transport, *credentials):
    """The code of the CONNACK, as paho tells it: that of MQTT 5 for either version."""
    with Client(guarded, version, "refused", *credentials, transport=transport) as client:
        return client.connacks[0].value if client.connacks[0].is_failure else 0


def mosquitto(program, guarded, version, *arguments):
    command = [program, "-h", "127.0.0.1", "-p", str(guarded.server.mqtt), "-V", version, *arguments]
    return subprocess.run(command, timeout=DEADLINE, capture_output=True, text=True, check=False)


def who_comes_in_with_mosquitto(version):
    with Guarded() as guarded:
        message = ("-t", "open/a", "-m", "x", "-q", "1")
        for credentials, expected in (
            (("-u", "anna", "-P", "secret"), 0),
            (("-u", "whoever", "-P", token("kiosk", 600)), 0),
            (("-u", "anna", "-P", "wrong"), BAD_CREDENTIALS[version]),
            (("-u", "zoe", "-P", "secret"), BAD_CREDENTIALS[version]),
            (("-u", "whoever", "-P", token("kiosk", -5)), BAD_CREDENTIALS[version]),
            ((), NOT_AUTHORIZED[version]),
        ):
            done = mosquitto("mosquitto_pub", guarded, version, *message, *credentials)
            same((credentials, done.returncode), (credentials, expected))


def who_comes_in_with_paho(version, transport):
    with Guarded() as guarded:
        for credentials, expected in (
            (("anna", "secret"), 0),
            (("", token("kiosk", 600)), 0),
            (("anna", "wrong"), 0x86),
            (("zoe", "secret"), 0x86),
            (("", token("kiosk", -5)), 0x86),
            ((), 0x87),
        ):
            same((credentials, refused(guarded, version, transport, *credentials)), (credentials, expected))


def who_is_removed_has_to_go(version, transport):
    with Guarded() as guarded, Client(guarded, version, "a", "anna", "secret", transport=transport) as anna:
        with Client(guarded, version, "b", "bea", "secret", transport=transport) as bea:
            guarded.remove("anna")
            until(lambda: anna.losses, "the end of anna's connection")
            if version == "mqttv5":
                same(anna.losses[0].value, 0x87)
            same(refused(guarded, version, transport, "anna", "secret"), 0x86)
            same(bea.subscribe("#"), 1)
            same(bea.losses, [])


def a_token_ends(version):
    with Guarded() as guarded, Client(guarded, version, "a", "", token("kiosk", 2)) as kiosk:
        until(lambda: kiosk.losses, "the end of the connection")
        if version == "mqttv5":
            same(kiosk.losses[0].value, 0x87)


def what_the_rules_refuse(version, transport):
    five = version == "mqttv5"
    with Guarded() as guarded, Client(guarded, version, "a", "anna", "secret", transport=transport) as anna:
        with Client(guarded, version, "b", "bea", "secret", transport=transport) as bea:
            same([bea.subscribe("#"), anna.subscribe("#")], [1, 1])
            same(anna.subscribe("closed/#"), 0x87 if five else 0x80)
            same(anna.publish("closed/a"), 0x87 if five else 0)
            same(bea.publish("closed/a"), 0x87 if five else 0)
            same(anna.publish("open/a"), 0)
            until(lambda: bea.received and anna.received, "what is open")
            same((bea.received, anna.received), (["open/a"], ["open/a"]))


def what_the_rules_refuse_to_mosquitto(version):
    with Guarded() as guarded:
        anna = ("-u", "anna", "-P", "secret")
        done = mosquitto("mosquitto_sub", guarded, version, *anna, "-t", "closed/#", "-q", "1")
        assert "denied" in done.stderr, done
        published = [
            mosquitto("mosquitto_pub", guarded, version, *anna, "-t", topic, "-m", "x", "-q", "1", "-r")
            for topic in ("closed/a", "open/a")
        ]
        same([done.returncode for done in published], [0, 0])
        same(["Not authorized" in done.stderr for done in published], [version == "mqttv5", False])
        done = mosquitto("mosquitto_sub", guarded, version, "-u", "bea", "-P", "secret", "-t", "#", "-v", "-C", "1")
        same(done.stdout, "open/a x\n")


def curl():
    with Guarded() as guarded:
        def status(path, *arguments):
            url = f"http://127.0.0.1:{guarded.server.http}/api/v1/{path}"
            command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", *arguments, url]
            done = subprocess.run(command, timeout=DEADLINE, capture_output=True, text=True, check=True)
            return int(done.stdout)

        anna = ("-u", "anna:secret")
        def bearer(lasts):
            return "-H", f"Authorization: Bearer {token('kiosk', lasts)}"

        for path, arguments, expected in (
            ("topics", anna, 200),
            ("topics", bearer(600), 200),
            ("topics", bearer(-5), 401),
            ("topics", ("-u", "anna:wrong"), 401),
            ("topics", ("-u", "zoe:secret"), 401),
            ("topics", (), 401),
            ("topics/open/a", (*anna, "-X", "PUT", "-d", "x"), 200),
            ("topics/closed/a", (*anna, "-X", "PUT", "-d", "x"), 403),
            ("topics/open/a", anna, 200),
            ("topics/open/none", anna, 404),
            ("topics/closed/a", anna, 403),
            ("history/closed/a", anna, 403),
            ("rooms/main/reset", (*anna, "-X", "POST"), 403),
        ):
            same((path, arguments, status(path, *arguments)), (path, arguments, expected))
        guarded.remove("anna")
        until(lambda: status("topics", *anna) == 401, "anna is removed")


def main():
    checks = Checks()
    for version in VERSIONS:
        for check in (who_comes_in_with_mosquitto, what_the_rules_refuse_to_mosquitto, a_token_ends):
            checks.run(f"{check.__name__} {version}", check, version)
        for transport in ("tcp", "websockets"):
            for check in (who_comes_in_with_paho, who_is_removed_has_to_go, what_the_rules_refuse):
                checks.run(f"{check.__name__} {version} {transport}", check, version, transport)
    checks.run("curl", curl)
    checks.finish()


main()
