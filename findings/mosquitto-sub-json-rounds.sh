#!/usr/bin/env bash
# `mosquitto_sub -F %J` prints other numbers than were published, also whole numbers below 2^53 (mosquitto_sub 2.0.11).
#
# Expected: a payload that is JSON is put into the line as it is; at the least its numbers keep their values as 64-bit floats, so that whole
#   numbers up to 2^53 - 1 are exact. mosquitto_sub(1), "Output format": %J prints the payload without quotes and escapes, and the example there
#   has a temperature of 27.0. RFC 8259 §6: whole numbers within ±(2^53 - 1) are those on whose values implementations agree.
# Seen: the payload is parsed and printed anew, each number with 15 digits where that differs from it by no more than a relative 2^-52, and
#   with 17 digits otherwise. From 4.5e15 on such a difference can be 1: 5000000000000001 becomes 5e+15. 0.30000000000000004 becomes 0.3,
#   27.0 becomes 27, 1e400 becomes null, and a string ends at \u0000. %p prints each payload as it was published.
#   A program that reads identifiers, counters or times of 16 digits from these lines gets another one now and then.
# Versions: mosquitto and mosquitto_sub 2.0.11 (Debian 12: 2.0.11-1.2+deb12u2), libcjson1 1.7.15-1+deb12u4. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
broker=
trap '[[ -z $broker ]] || kill "$broker" 2>/dev/null || true; rm -rf "$work"' EXIT

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
printf 'listener %s 127.0.0.1\nallow_anonymous true\n' "$port" >"$work/mosquitto.conf"
mosquitto -c "$work/mosquitto.conf" 2>"$work/log" &
broker=$!
mosquitto_sub --help | head -2 | tail -1 || true  # its help exits with an error
dpkg-query --show libcjson1 mosquitto-clients 2>/dev/null || true

timeout 60 python3 - "$port" <<'PYTHON'
import json, socket, subprocess, sys, time

port, deadline = sys.argv[1], 20
end = time.monotonic() + deadline
while True:
    try:
        socket.create_connection(("127.0.0.1", int(port))).close()
        break
    except OSError:
        assert time.monotonic() < end, "the broker does not listen"
        time.sleep(0.05)

def run(program, *arguments):
    done = subprocess.run([program, "-h", "127.0.0.1", "-p", port, *arguments], stdout=subprocess.PIPE, timeout=deadline, check=True)
    return done.stdout.decode()

# payload, and what %J printed for it on 2026-11-29
rows = [
    ("21.5", "21.5"),
    ("4503599627370497", "4503599627370497"),
    ("5000000000000001", "5e+15"),
    ("8123456789012341", "8.12345678901234e+15"),
    ("9007199254740991", "9.00719925474099e+15"),
    ('{"count":5000000000000001}', '{"count":5e+15}'),
    ("0.1", "0.1"),
    ("0.30000000000000004", "0.3"),
    ('{"temperature":27.0,"humidity":57}', '{"temperature":27,"humidity":57}'),
    ("1e400", "null"),
    (r'"a\u0000b"', '"a"'),
]
same, marker = True, '"payload":'
for n, (payload, expected) in enumerate(rows):
    run("mosquitto_pub", "-r", "-q", "1", "-t", f"row/{n}", "-m", payload)
    once = ["-C", "1", "-W", "10", "-t", f"row/{n}", "-F"]
    line = run("mosquitto_sub", *once, "%J").rstrip("\n")
    plain = run("mosquitto_sub", *once, "%p").rstrip("\n")
    printed = line[line.index(marker) + len(marker):-1]
    length = json.loads(line)["payloadlen"]
    equal = "the same value" if json.loads(printed) == json.loads(payload) else "another value"
    good = printed == expected and plain == payload and length == len(payload)
    same &= good
    print(f"{payload:<36} {printed:<34} {equal}" + ("" if good else f", but {expected} on 2026-11-29, %p {plain}, payloadlen {length}"))
if not same:
    sys.exit("the behaviour has changed")
PYTHON
