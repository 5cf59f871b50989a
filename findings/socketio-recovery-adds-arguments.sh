#!/usr/bin/env bash
# Connection-state recovery adds an argument to events, also for clients that cannot recover (socket.io 4.8.4, python-socketio 5.18.1).
#
# Expected: `connectionStateRecovery` is an option of the server that clients without recovery do not notice. Socket.IO documentation, "Connection
#   state recovery", "How it works under the hood": every packet has an offset, at the end of its data so that older clients stay compatible.
#   A handler written for the arguments that are emitted goes on working.
# Seen: a plain event has its offset, a string, as one more argument, whatever the client is able to do. An event that is volatile or wants
#   an acknowledgement has none. So the number of arguments depends on an option of the server and on how the event was emitted.
#   JavaScript drops what a handler does not take. A Python handler `def temperature(value)` is not called any more once the server has the
#   option: python-socketio raises a TypeError in the thread of that event, and stays connected. `def temperature(value, *_)` fits both.
# Versions: socket.io 4.8.4, socket.io-client 4.8.4 (npm), node 20.20.2, python-socketio 5.18.1, websocket-client 1.9.0. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
servers=()
trap '[[ ${#servers[@]} = 0 ]] || kill "${servers[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
printf '{"private": true}\n' >package.json
timeout 180 npm install --silent --no-audit --no-fund --ignore-scripts socket.io@4.8.4 socket.io-client@4.8.4
python3 -m venv venv
timeout 120 venv/bin/pip install --quiet --disable-pip-version-check python-socketio==5.18.1 websocket-client==1.9.0
node -p '`socket.io ${require("socket.io/package.json").version}, node ${process.version}`'
venv/bin/pip list --disable-pip-version-check 2>/dev/null | grep -E '^(python-socketio|websocket-client) '

cat >server.cjs <<'JS'
const { createServer } = require('http');
const { Server } = require('socket.io');
const http = createServer();
const io = new Server(http, process.argv[2] === 'recovery' ? { connectionStateRecovery: {} } : {});
io.on('connection', (socket) =>
  socket.on('start', async () => {
    socket.emit('temperature', 21.5);
    socket.emit('none');
    io.emit('broadcast', 21.5, { unit: 'C' });
    await socket.emitWithAck('acknowledged', 21.5);
    socket.volatile.emit('volatile', 21.5);
    socket.emit('end');
  }),
);
http.listen(0, '127.0.0.1', () => console.log(http.address().port));
JS
cat >client.cjs <<'JS'
const socket = require('socket.io-client').io(`http://127.0.0.1:${process.argv[2]}`, { transports: ['websocket'] });
const counts = {};
socket.onAny((event, ...args) => {
  if (event === 'acknowledged') args.pop()();
  counts[event] = args.length;
  if (event !== 'end') return;
  console.log(Object.values(counts).join(' '));
  process.exit();
});
socket.emit('start');
JS
cat >client.py <<'PYTHON'
import sys, threading, socketio

threading.excepthook = lambda raised: print("raised:", raised.exc_type.__name__, file=sys.stderr)
client, counts, called, end = socketio.Client(), {}, [], threading.Event()
client.on("temperature", lambda value: called.append(value))

@client.on("*")
def other(event, *args):
    counts[event] = len(args)
    if event == "end":
        end.set()

client.connect(f"http://127.0.0.1:{sys.argv[1]}", transports=["websocket"])
client.emit("start")
assert end.wait(20)
print("called" if called == [21.5] else "not-called", *counts.values())
client.disconnect()
PYTHON

same=true
# option, then the numbers of arguments that were seen on 2026-11-29: temperature, none, broadcast, acknowledged, volatile, end
while read -r option javascript python; do
  node server.cjs "$option" >"$option.port" &
  servers+=("$!")
  for _ in {1..200}; do [[ -s $option.port ]] && break; sleep 0.05; done
  for client in "node client.cjs" "venv/bin/python client.py"; do
    seen=$(timeout 40 $client "$(<"$option.port")" | tr ' ' ,)
    [[ $client = node* ]] && expected=$javascript || expected=$python
    printf '%-9s %-26s %s\n' "$option" "$client" "$seen"
    [[ $seen = "$expected" ]] || { echo "  but $expected on 2026-11-29"; same=false; }
  done
done <<'ROWS'
none 1,0,2,1,1,0 called,0,2,1,1,0
recovery 2,1,3,1,1,1 not-called,1,3,1,1,1
ROWS
$same || { echo "the behaviour has changed" >&2; exit 1; }
