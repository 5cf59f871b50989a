"""Home Assistant itself, set up as a user does it: its MQTT integration pointed at latchbus, and a device that it discovers."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import paho.mqtt.client as mqtt

from server import DEADLINE, Checks, Server, same, until

PASSWORDS = {"assistant": "of the house", "lamp": "of the lamp"}
SETTINGS = """
users = "{folder}/users"
[access.users]
assistant = ["assistant"]
lamp = ["device"]
[access.roles.assistant]
publish = ["homeassistant/status", "devices/+/set"]
subscribe = ["homeassistant/#", "devices/#"]
[access.roles.device]
publish = ["homeassistant/+/{{user}}/#", "devices/{{user}}/#"]
subscribe = ["homeassistant/status", "devices/{{user}}/set"]
"""
# As a user writes it; the rest are defaults.
CONFIGURATION = """
homeassistant:
  name: Test
  country: AT
  currency: EUR
http:
  server_host: 127.0.0.1
  server_port: {port}
"""
SWITCH, SENSOR, DOOR = "switch.kitchen_lamp", "sensor.kitchen_lamp_power", "binary_sensor.kitchen_lamp_door"
# How it connects: by its defaults, and by its advanced options.
KINDS = {"3.1.1 tcp": {}, "5 websockets": {"protocol": "5", "transport": "websockets", "ws_path": "/mqtt"}}


def seldom(condition):
    """For a condition that costs a request."""

    def seldom_looked_at():
        met = condition()
        if not met:
            time.sleep(0.1)
        return met

    return seldom_looked_at


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class HomeAssistant:
    """The program, its folder and an owner who has signed in."""

    def __init__(self, folder):
        self.folder, self.port, self.token, self.process = folder, free_port(), None, None
        with open(f"{folder}/configuration.yaml", "w", encoding="utf-8") as out:
            out.write(CONFIGURATION.format(port=self.port))

    def start(self):
        # It keeps its log in the folder. What it needs was installed with it.
        command = [os.environ["HASS"], "--config", self.folder, "--skip-pip"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(seldom(self.is_there), "Home Assistant")

    def is_there(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"Home Assistant has ended: {self.log()}")
        try:
            if self.token:
                return self.ask("GET", "/api/config")["state"] == "RUNNING"
            return bool(self.ask("GET", "/api/onboarding"))
        except (OSError, urllib.error.HTTPError):
            return False

    def log(self):
        try:
            with open(f"{self.folder}/home-assistant.log", encoding="utf-8") as log:
                return log.read()[-8_000:]
        except FileNotFoundError:
            return ""

    def ask(self, method, path, body=None, form=False):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        if form:
            request.data = urllib.parse.urlencode(body).encode()
        elif body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return json.load(answer)

    def take_possession(self):
        """What its first page asks: who the owner is."""
        here = f"http://127.0.0.1:{self.port}/"
        owner = {"client_id": here, "name": "Anna", "username": "anna", "password": "secret", "language": "en"}
        code = self.ask("POST", "/api/onboarding/users", owner)["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": here}
        self.token = self.ask("POST", "/auth/token", form, form=True)["access_token"]

    def add_mqtt(self, answers, advanced):
        """Settings, Devices & services, MQTT. Returns the error that the form shows, if there is one."""
        begin = {"handler": "mqtt", "show_advanced_options": bool(advanced)}
        flow = self.ask("POST", "/api/config/config_entries/flow", begin)
        step = f"/api/config/config_entries/flow/{flow['flow_id']}"
        if advanced:
            # The form grows by what is chosen in it.
            self.ask("POST", step, {**answers, "advanced_options": True})
            chosen = {name: value for name, value in advanced.items() if name != "ws_path"}
            self.ask("POST", step, {**answers, **chosen})
        flow = self.ask("POST", step, {**answers, **advanced})
        if flow["type"] == "create_entry":
            return None
        self.ask("DELETE", step)
        return flow["errors"]

    def state(self, entity):
        try:
            return self.ask("GET", f"/api/states/{entity}")["state"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def shows(self, **expected):
        def found():
            return {entity: self.state(entity) for entity in expected}

        try:
            until(seldom(lambda: found() == expected), expected)
        except AssertionError as late:
            raise AssertionError(f"{found()} is not {expected}\n{self.log()}") from late

    def switch(self, action):
        self.ask("POST", f"/api/services/switch/turn_{action}", {"entity_id": SWITCH})

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)

    def kill(self):
        self.process.kill()
        self.process.wait(DEADLINE)


class Lamp:
    """A device as its firmware would be: all that it says is retained, and its will says that it is gone."""

    def __init__(self, server, before=None):
        self.lit, self.power = (before.lit, before.power) if before else ("OFF", "0.0")
        self.births, self.answered = [], 0
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="lamp")
        self.client.username_pw_set("lamp", PASSWORDS["lamp"])
        self.client.will_set("devices/lamp/status", "offline", 1, True)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self.connected
        self.client.on_message = self.received
        self.client.connect("127.0.0.1", server.mqtt)
        self.client.loop_start()

    def connected(self, client, *_):
        client.subscribe([("homeassistant/status", 1), ("devices/lamp/set", 1)])
        self.publish("devices/lamp/status", "online")
        self.show()

    def received(self, _client, _data, message):
        text = message.payload.decode()
        if message.topic == "homeassistant/status":
            self.births.append(text)
        else:
            self.answered += 1
            self.switched(text)

    def switched(self, lit):
        self.lit, self.power = lit, "7.5" if lit == "ON" else "0.0"
        self.show()

    def show(self):
        self.publish("devices/lamp/state", json.dumps({"lit": self.lit, "power": self.power}))

    def publish(self, topic, payload):
        return self.client.publish(topic, payload, 1, True)

    def config(self, component, name, **more):
        """A discovery message of one of its entities."""
        about = {
            "unique_id": f"lamp-{component}",
            "name": name,
            "availability_topic": "devices/lamp/status",
            "state_topic": "devices/lamp/state",
            "device": {"identifiers": ["lamp"], "name": "Kitchen lamp", "manufacturer": "Nobody"},
            **more,
        }
        self.publish(f"homeassistant/{component}/lamp/config", json.dumps(about)).wait_for_publish(DEADLINE)

    def announce(self):
        self.config("switch", None, command_topic="devices/lamp/set", value_template="{{ value_json.lit }}")
        self.config(
            "sensor", "Power", device_class="power", unit_of_measurement="W", value_template="{{ value_json.power }}"
        )

    def announce_door(self):
        self.config("binary_sensor", "Door", state_topic="devices/lamp/door", device_class="door")
        self.publish("devices/lamp/door", "ON").wait_for_publish(DEADLINE)

    def cut(self):
        """Ends it as a power cut does."""
        self.client.on_disconnect = None
        self.client.loop_stop()
        self.client.socket().close()

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()


class House:
    """A server with users and rules, Home Assistant, and a lamp."""

    def __init__(self, kind):
        self.advanced = KINDS[kind]
        self.store, self.folder, self.config = (tempfile.TemporaryDirectory() for _ in range(3))
        for who, password in PASSWORDS.items():
            command = [os.environ["LATCHBUS"], "user", "add", who, "--password-stdin", "--file", f"{self.folder.name}/users"]
            subprocess.run(command, check=True, input=f"{password}\n", text=True, stdout=subprocess.DEVNULL)
        settings = f"{self.folder.name}/latchbus.toml"
        with open(settings, "w", encoding="utf-8") as out:
            out.write(SETTINGS.format(folder=self.folder.name))
        self.server = Server(self.store.name, settings=settings).__enter__()
        self.server.keep_ports()
        self.hass = HomeAssistant(self.config.name)
        self.lamp = Lamp(self.server)

    def broker(self, password):
        port = self.server.http if self.advanced else self.server.mqtt
        return {"broker": "127.0.0.1", "port": port, "username": "assistant", "password": password}

    def end(self):
        self.lamp.leave()
        if self.hass.process and self.hass.process.poll() is None:
            self.hass.kill()
        self.server.__exit__()
        for folder in (self.store, self.folder, self.config):
            folder.cleanup()

    # What happens, in this order.

    def the_form_takes_the_right_password_only(self):
        self.hass.start()
        self.hass.take_possession()
        until(seldom(self.hass.is_there), "the end of its start")
        wrong = self.hass.add_mqtt(self.broker("wrong"), self.advanced)
        assert wrong, "the wrong password is taken"
        same(self.hass.add_mqtt(self.broker(PASSWORDS["assistant"]), self.advanced), None)

    def a_device_hears_its_birth(self):
        """By which devices announce themselves whose discovery is not retained."""
        until(lambda: self.lamp.births, "the birth message")
        same(self.lamp.births, ["online"])

    def a_device_is_discovered(self):
        self.lamp.announce()
        self.hass.shows(**{SWITCH: "off", SENSOR: "0.0"})

    def a_switch_switches(self):
        answered = self.lamp.answered
        for action, power in (("on", "7.5"), ("off", "0.0"), ("on", "7.5")):
            self.hass.switch(action)
            self.hass.shows(**{SWITCH: action, SENSOR: power})
        same(self.lamp.answered, answered + 3)

    def a_device_without_power_is_unavailable_until_it_is_back(self):
        self.lamp.cut()
        self.hass.shows(**{SWITCH: "unavailable", SENSOR: "unavailable"})
        self.lamp = Lamp(self.server, self.lamp)
        self.hass.shows(**{SWITCH: "on", SENSOR: "7.5"})

    def the_server(self, again):
        """Is away long enough to be missed, and back."""
        births = len(self.lamp.births)
        gone = {SWITCH: "unavailable", SENSOR: "unavailable"}
        again(self.server, lambda: self.hass.shows(**gone))
        self.hass.shows(**{SWITCH: "on", SENSOR: "7.5"})
        until(lambda: "online" in self.lamp.births[births:], "another birth message")
        self.a_switch_switches()

    def what_is_retained_while_it_is_stopped_is_there_at_its_start(self):
        """Its own will, too: it never says goodbye."""
        births = len(self.lamp.births)
        self.hass.stop()
        until(lambda: self.lamp.births[births:] == ["offline"], "the will of Home Assistant")
        self.lamp.switched("OFF")
        self.lamp.announce_door()
        self.hass.start()
        self.hass.shows(**{SWITCH: "off", SENSOR: "0.0", DOOR: "on"})
        self.a_switch_switches()

    def a_device_that_goes_while_it_is_killed_is_unavailable_until_it_is_back(self):
        births = len(self.lamp.births)
        self.hass.kill()
        until(lambda: self.lamp.births[births:] == ["offline"], "the will of Home Assistant")
        self.lamp.cut()
        self.hass.start()
        self.hass.shows(**dict.fromkeys((SWITCH, SENSOR, DOOR), "unavailable"))
        self.lamp = Lamp(self.server, self.lamp)
        self.hass.shows(**{SWITCH: "on", SENSOR: "7.5", DOOR: "on"})

    def an_entity_whose_discovery_is_cleared_is_gone(self):
        self.lamp.publish("homeassistant/binary_sensor/lamp/config", "").wait_for_publish(DEADLINE)
        self.hass.shows(**{SWITCH: "on", SENSOR: "7.5", DOOR: None})

    def checks(self):
        return (
            (self.the_form_takes_the_right_password_only,),
            (self.a_device_hears_its_birth,),
            (self.a_device_is_discovered,),
            (self.a_switch_switches,),
            (self.a_device_without_power_is_unavailable_until_it_is_back,),
            (self.the_server, Server.restart),
            (self.the_server, Server.kill),
            (self.what_is_retained_while_it_is_stopped_is_there_at_its_start,),
            (self.a_device_that_goes_while_it_is_killed_is_unavailable_until_it_is_back,),
            (self.an_entity_whose_discovery_is_cleared_is_gone,),
        )


def main():
    checks = Checks()
    for kind in KINDS:
        house = House(kind)
        try:
            for check, *arguments in house.checks():
                name = " ".join([check.__name__, *(it.__name__ for it in arguments), kind])
                checks.run(name, check, *arguments)
                # Each begins where the one before has ended.
                if checks.failed:
                    break
        finally:
            house.end()
    checks.finish()


main()
