#!/usr/bin/env bash
# UNSUBSCRIBE of a filter below an unknown `$` topic succeeds without a subscription (Mosquitto 2.0.11).
#
# Expected: the reason code says whether there was a subscription to delete: 0x11 (no subscription existed) for each filter to which this
#   client has not subscribed, whatever its first level. MQTT 5 §3.11.3, table 3-9.
# Seen: 0x11 for `zz`, `+` and `$SYS/none`; 0x00 (success) for `$x/y` and `$x/+`, which nobody has ever subscribed to. Once anybody is
#   subscribed to `$x/other`, it is 0x11 for these too. A client that tells from the code whether its session still has a subscription
#   is misled below `$` topics of its own.
# Versions: mosquitto 2.0.11 (Debian 12: 2.0.11-1.2+deb12u2), paho-mqtt 2.1.0. Date: 2026-11-29.
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

port, deadline = int(sys.argv[1]), 20
end = time.monotonic() + deadline
while True:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        break
    except OSError:
        assert time.monotonic() < end, "the broker does not listen"
        time.sleep(0.05)

def connect(name):
    client, ready = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5), queue.Queue()
    client.codes = queue.Queue()
    client.on_connect = lambda c, u, flags, code, p: ready.put(not code.is_failure)
    client.on_subscribe = client.on_unsubscribe = lambda c, u, mid, codes, p: client.codes.put([code.value for code in codes])
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert ready.get(timeout=deadline)
    return client

asking, other = connect("asking"), connect("other")

def unsubscribe(filter):
    asking.unsubscribe(filter)
    return asking.codes.get(timeout=deadline)

good = True
def check(filter, expected):
    global good
    codes = unsubscribe(filter)
    good &= codes == [expected]
    print(f"UNSUBSCRIBE {filter}: {codes[0]:#04x}{'' if codes == [expected] else f', but {expected:#04x} on 2026-11-29'}")

for filter, expected in [("zz", 0x11), ("+", 0x11), ("$SYS/none", 0x11), ("$x/y", 0x00), ("$x/+", 0x00)]:
    check(filter, expected)
other.subscribe("$x/other")
assert other.codes.get(timeout=deadline) == [0]
print("another client is subscribed to $x/other")
for filter in ["$x/y", "$x/+"]:
    check(filter, 0x11)
for client in (asking, other):
    client.disconnect()
    client.loop_stop()
sys.exit(0 if good else "the behaviour has changed")
PYTHON
