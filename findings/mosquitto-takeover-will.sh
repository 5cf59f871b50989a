#!/usr/bin/env bash
# A will is lost when its client takes its own session over (Mosquitto 2.0.11).
#
# Expected: a second CONNECT with the identifier of a connected client ends the first connection, and the first connection's will is
#   published, as no DISCONNECT came. Only a will delay of MQTT 5 may hold it back.
#   MQTT 3.1.1 §3.1.2.5 [MQTT-3.1.2-8], §3.1.4 [MQTT-3.1.4-2]; MQTT 5 §3.1.4, step 1 and the comment below it.
# Seen: the will is never published where the new connection resumes the session: 3.1.1 with clean session 0 on both connections; 5 with
#   clean start 0, session expiry above 0 and no will delay. With a clean flag on either connection, or where the socket is closed before
#   the client returns, it is published. Whoever watches the status of a persistent client sees nothing of a half-open link.
# Versions: mosquitto 2.0.11 (Debian 12: 2.0.11-1.2+deb12u2), paho-mqtt 2.1.0. Date: 2026-11-28.
set -euo pipefail

work=$(mktemp -d)
broker=
trap '[[ -z $broker ]] || kill "$broker" 2>/dev/null || true; rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
timeout 120 "$work/venv/bin/pip" install --quiet --disable-pip-version-check paho-mqtt==2.1.0
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
printf 'listener %s 127.0.0.1\nallow_anonymous true\n' "$port" >"$work/mosquitto.conf"
mosquitto -c "$work/mosquitto.conf" 2>"$work/log" &
broker=$!
mosquitto -h | head -1 || true  # its help exits with an error

timeout 60 "$work/venv/bin/python" - "$port" <<'PYTHON'
import queue, socket, sys, time
import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

port, deadline = int(sys.argv[1]), 20
end = time.monotonic() + deadline
while True:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        break
    except OSError:
        assert time.monotonic() < end, "the broker does not listen"
        time.sleep(0.05)

def connect(name, version, clean, will):
    """A connected client with a will. In MQTT 5 its session outlives the connection by 100 s, and the will has no delay."""
    five, ready, more = version == 5, queue.Queue(), {}
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
                         clean_session=None if five else clean, reconnect_on_failure=False)
    client.on_connect = lambda c, u, flags, code, p: ready.put((code.is_failure, flags.session_present))
    client.will_set("status/" + name, will, qos=1)
    if five:
        more = {"clean_start": clean, "properties": Properties(PacketTypes.CONNECT)}
        more["properties"].SessionExpiryInterval = 100
    client.connect("127.0.0.1", port, **more)
    client.loop_start()
    failed, present = ready.get(timeout=deadline)
    assert not failed
    return client, present

seen, subscribed = queue.Queue(), queue.Queue()
observer = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="observer")
observer.on_message = lambda c, u, m: seen.put(m.payload.decode())
observer.on_subscribe = lambda *_: subscribed.put(True)
observer.connect("127.0.0.1", port)
observer.subscribe("status/#", qos=1)
observer.loop_start()
subscribed.get(timeout=deadline)

good = True
for n, (version, clean_first, clean_second, close_first, expected) in enumerate([
    (311, True, True, False, ["first"]), (311, False, True, False, ["first"]), (311, True, False, False, ["first"]),
    (311, False, False, True, ["first"]), (5, False, True, False, ["first"]),
    (311, False, False, False, []), (5, False, False, False, []),
]):
    name, found = f"device-{n}", []
    first, _ = connect(name, version, clean_first, "first")
    if close_first:
        first.socket().shutdown(socket.SHUT_RDWR)
        found.append(seen.get(timeout=deadline))
    second, present = connect(name, version, clean_second, "second")
    time.sleep(1)  # what would come late is counted, too
    second.publish("status/" + name, "marker", qos=1)
    while (message := seen.get(timeout=deadline)) != "marker":
        found.append(message)
    for client in (second, first):
        client.disconnect()
        client.loop_stop()
    good &= found == expected
    print(f"MQTT {version}: clean {clean_first:d} then {clean_second:d}, {'socket closed first' if close_first else 'taken over'}, "
          f"session present {present:d}: wills {found}{'' if found == expected else f', but {expected} on 2026-11-28'}")
sys.exit(0 if good else "the behaviour has changed")
PYTHON
