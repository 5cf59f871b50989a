"""Node-RED itself, with a flow from an MQTT-in node to an MQTT-out node, against latchbus."""

import json
import os
import signal
import subprocess
import tempfile
import threading

import paho.mqtt.client as mqtt

from server import DEADLINE, Checks, Server, same, until

# It waits 15 s between its attempts unless told otherwise. Its editor is left out.
SETTINGS = """
module.exports = {
  flowFile: 'flows.json', credentialSecret: false, uiHost: '127.0.0.1', uiPort: 0, httpAdminRoot: false,
  mqttReconnectTime: 200, telemetry: { enabled: false, updateNotification: false },
};
"""
KINDS = (("4", "tcp"), ("5", "tcp"), ("4", "websockets"), ("5", "websockets"))
USER, PASSWORD = "flows", "of the flows"


def flow(server, version, transport):
    """As its editor exports it."""
    if transport == "tcp":
        address = {"broker": "127.0.0.1", "port": str(server.mqtt)}
    else:
        address = {"broker": f"ws://127.0.0.1:{server.http}/mqtt", "port": ""}
    messages = {}
    for when, text in (("birth", "online"), ("close", "closed"), ("will", "offline")):
        messages |= {f"{when}Topic": "flow/status", f"{when}Qos": "1", f"{when}Retain": "true", f"{when}Payload": text}
    rule = {"t": "change", "p": "topic", "pt": "msg", "from": "flow/in/", "fromt": "str", "to": "flow/out/", "tot": "str"}
    return [
        {"id": "tab", "type": "tab", "label": "latchbus"},
        {
            "id": "broker", "type": "mqtt-broker", "clientid": "node-red", "autoConnect": True, "usetls": False,
            "protocolVersion": version, "keepalive": "60", "cleansession": True, **address, **messages,
        },
        {
            "id": "in", "type": "mqtt in", "z": "tab", "x": 100, "y": 100, "topic": "flow/in/#", "qos": "1", "datatype": "auto-detect",
            "broker": "broker", "nl": False, "rap": True, "rh": 0, "inputs": 0, "wires": [["change"]],
        },
        {"id": "change", "type": "change", "z": "tab", "x": 300, "y": 100, "rules": [rule], "wires": [["out"]]},
        {
            "id": "out", "type": "mqtt out", "z": "tab", "x": 500, "y": 100, "topic": "", "qos": "1", "retain": "true",
            "broker": "broker", "wires": [],
        },
    ]


class NodeRed:
    """The program with a flow."""

    def __init__(self, server, kind):
        self.folder, self.log = tempfile.TemporaryDirectory(), []
        secret = {"broker": {"user": USER, "password": PASSWORD}}
        for name, content in (
            ("settings.js", SETTINGS),
            ("flows.json", json.dumps(flow(server, *kind))),
            ("flows_cred.json", json.dumps(secret)),
        ):
            with open(f"{self.folder.name}/{name}", "w", encoding="utf-8") as out:
                out.write(content)

    def __enter__(self):
        command = ["node", os.environ["NODE_RED"], "--userDir", self.folder.name]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=lambda: self.log.extend(self.process.stdout), daemon=True).start()
        return self

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait(DEADLINE)

    def __exit__(self, error, *_):
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        self.process.stdout.close()
        self.folder.cleanup()
        if error:
            print("".join(self.log))


class Other:
    """Who is at the other ends of the flow, and the last value of each topic there."""

    def __init__(self, server):
        self.values, self.client = {}, mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.username_pw_set(USER, PASSWORD)
        self.client.on_connect = lambda *_: self.client.subscribe([("flow/out/#", 1), ("flow/status", 1)])
        self.client.on_message = self.received
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", server.mqtt)
        self.client.loop_start()

    def received(self, _client, _data, message):
        self.values[message.topic] = message.payload.decode()

    def publish(self, name, text, retain=False):
        self.client.publish(f"flow/in/{name}", text, 1, retain).wait_for_publish(DEADLINE)

    def sees(self, topic, text):
        until(lambda: self.values.get(topic) == text, f"{text} at {topic}, but {self.values}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.client.loop_stop()


def a_flow(version, transport):
    """What is retained comes in and goes out, over a restart and a kill of the server; its will says that it is gone."""
    with tempfile.TemporaryDirectory() as folder:
        command = [os.environ["LATCHBUS"], "user", "add", USER, "--password-stdin", "--file", f"{folder}/users"]
        subprocess.run(command, check=True, input=f"{PASSWORD}\n", text=True, stdout=subprocess.DEVNULL)
        with open(f"{folder}/latchbus.toml", "w", encoding="utf-8") as out:
            out.write(f'users = "{folder}/users"\n')
        with Server(f"{folder}/store", settings=f"{folder}/latchbus.toml") as server, Other(server) as other:
            server.keep_ports()
            other.publish("before", "21.5", retain=True)
            with NodeRed(server, (version, transport)) as node_red:
                other.sees("flow/status", "online")
                other.sees("flow/out/before", "21.5")
                other.publish("event", '{"lit":true}')
                other.sees("flow/out/event", '{"lit":true}')
                for number, again in enumerate((Server.restart, Server.kill)):
                    other.values.clear()
                    again(server)
                    other.sees("flow/status", "online")
                    # What it has published is retained, and what it has subscribed to comes again.
                    other.sees("flow/out/before", "21.5")
                    other.publish("event", f"{number}")
                    other.sees("flow/out/event", f"{number}")
                node_red.end(signal.SIGKILL)
                other.sees("flow/status", "offline")
            with NodeRed(server, (version, transport)) as node_red:
                other.sees("flow/status", "online")
                node_red.end(signal.SIGTERM)
                other.sees("flow/status", "closed")
                same(other.values["flow/out/before"], "21.5")


def main():
    checks = Checks()
    for kind in KINDS:
        checks.run(" ".join(("a flow, MQTT", *kind)), a_flow, *kind)
    checks.finish()


main()
