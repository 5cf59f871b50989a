#!/usr/bin/env bash
# Whether nginx holds back an event stream with `proxy_buffering on` depends on how the upstream's answer is framed (nginx 1.22.1).
#
# Expected: with `proxy_buffering on` small events wait in nginx until a buffer is full or the answer ends, however its end is marked, and this is
#   why event streams get `proxy_buffering off`. ngx_http_proxy_module, proxy_buffering: with `on` the answer is saved into the buffers,
#   with `off` it is passed on as it is received; a response header X-Accel-Buffering decides as well.
# Seen, with three short events, each sent when the one before it has arrived or 5 s have passed, and otherwise the same directives:
#   chunked answer: each event arrives at once, as if buffering were off.
#   answer that ends with the connection (neither Transfer-Encoding nor Content-Length, RFC 9112 §6.3): all events arrive when it ends.
#   compressed by nginx (gzip for text/event-stream): all arrive at the end, chunked or not. A stream that worked stops when gzip is turned on.
#   `proxy_buffering off`, or X-Accel-Buffering with `no`: each at once in all these cases, compressed too.
#   That a stream comes through one nginx says nothing about another upstream behind it, or about the same one once answers are compressed.
# Versions: nginx 1.22.1 (Debian 12: 1.22.1-9+deb12u11). Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
nginx=
trap '[[ -z $nginx ]] || kill "$nginx" 2>/dev/null || true; rm -rf "$work"' EXIT

read -r port upstream < <(python3 -c 'import socket
s, t = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1], t.getsockname()[1])')
{
  echo "daemon off; master_process off; pid $work/pid; error_log $work/log; events {}"
  echo "http { access_log off; gzip_types text/event-stream; gzip_min_length 1;"
  for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $work/$kind;"; done
  echo "server { listen 127.0.0.1:$port; proxy_http_version 1.1;"
  for row in on/off on/on off/off off/on; do
    echo "location /buffering-${row%/*}/gzip-${row#*/}/ { proxy_pass http://127.0.0.1:$upstream; proxy_buffering ${row%/*}; gzip ${row#*/}; }"
  done
  echo "} }"
} >"$work/nginx.conf"
nginx -v
nginx -c "$work/nginx.conf" -e "$work/log" &
nginx=$!

timeout 60 python3 - "$port" "$upstream" <<'PYTHON'
import concurrent.futures, http.client, http.server, socket, sys, threading, time, zlib

port, upstream, wait, events = int(sys.argv[1]), int(sys.argv[2]), 5, 3
# each row, and whether its events arrived at once on 2026-11-29
rows = {f"/buffering-{b}/gzip-{g}/{framing}{header}": b == "off" or bool(header) or (framing == "chunked" and g == "off")
        for b in ("on", "off") for g in ("off", "on") for framing in ("chunked", "close") for header in ("", "/x-accel-no")}
arrived = {row: [threading.Event() for _ in range(events)] for row in rows}
at_once, complete = dict.fromkeys(rows, False), dict.fromkeys(rows, False)

class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        chunked, prompt = "/chunked" in self.path, True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
        if self.path.endswith("/x-accel-no"):
            self.send_header("X-Accel-Buffering", "no")
        self.end_headers()
        for n in range(events):
            event = f"data: {n}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event) if chunked else event)
            prompt = prompt and arrived[self.path][n].wait(wait)
        at_once[self.path] = prompt
        self.wfile.write(b"0\r\n\r\n" if chunked else b"")

def read(row):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", row, headers={"Accept-Encoding": "gzip"})
    response = connection.getresponse()
    compressed, text = response.getheader("Content-Encoding") == "gzip", b""
    unpack = zlib.decompressobj(31).decompress if compressed else bytes
    while part := response.read1(4096):
        text += unpack(part)
        for n in range(text.count(b"\n\n")):
            arrived[row][n].set()
    complete[row] = text.count(b"\n\n") == events and compressed == ("gzip-on" in row)

end = time.monotonic() + 20
while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
    assert time.monotonic() < end, "nginx does not listen"
    time.sleep(0.05)
threading.Thread(target=http.server.ThreadingHTTPServer(("127.0.0.1", upstream), Upstream).serve_forever, daemon=True).start()
with concurrent.futures.ThreadPoolExecutor(len(rows)) as pool:
    list(pool.map(read, rows))
for row, seen in at_once.items():
    print(f"{row:<46} {'each event at once' if seen else 'all events at the end'}{'' if seen == rows[row] else ', which is new'}")
if at_once != rows or not all(complete.values()):
    sys.exit("the behaviour has changed")
PYTHON
