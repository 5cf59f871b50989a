#!/usr/bin/env python3
"""What an idle MQTT connection costs, plain and with TLS, here and in Mosquitto: servers take turns, each in a fresh process.

    cargo build --release -p latchbus
    benches/peers/tls_idle.py [--connections N] [--latchbus PROGRAM]

Each connection subscribes and gets nothing. Shown are the resident memory that it adds, the server's processor time for
connecting (with the handshake) and subscribing, and that for a ping. Linux; mosquitto as Debian carries it.
"""

import argparse
import glob
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time

CONNECT = b"\x10\x15\x00\x04MQTT\x04\x02\x00\x3c\x00\x09"
SUBSCRIBE = b"\x82\x09\x00\x01\x00\x04idle\x00"
PINGREQ = b"\xc0\x00"
LIMIT = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def memory_kib(process):
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def cpu_s(process):
    """Of all its threads, finer than the ticks of /proc/PID/stat."""
    total = 0
    for path in glob.glob(f"/proc/{process.pid}/task/*/schedstat"):
        with open(path) as schedstat:
            total += int(schedstat.read().split()[0])
    return total / 1e9


def exactly(stream, count):
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            raise ConnectionError("the server has closed the connection")
        data += part
    return data


def latchbus(program, directory, plain, tls):
    files = [os.path.join(directory, name) for name in ("server.pem", "server.key")]
    return [
        program, "--ephemeral", "--log", "error", "--http", "127.0.0.1:0", "--mqtt", f"127.0.0.1:{plain}",
        "--mqtt-tls", f"127.0.0.1:{tls}", "--tls-cert", files[0], "--tls-key", files[1],
    ]  # fmt: skip


def mosquitto(_, directory, plain, tls):
    path = os.path.join(directory, "mosquitto.conf")
    with open(path, "w") as conf:
        conf.write(f"allow_anonymous true\nlog_dest none\nset_tcp_nodelay true\nuser root\nlistener {plain} 127.0.0.1\n")
        conf.write(f"listener {tls} 127.0.0.1\ncertfile {directory}/server.pem\nkeyfile {directory}/server.key\n")
    return [shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin"), "-c", path]


def connect(port, trust, number):
    stream = socket.create_connection(("127.0.0.1", port), LIMIT)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if trust:
        stream = trust.wrap_socket(stream, server_hostname="127.0.0.1")
    stream.sendall(CONNECT + f"idle-{number:04}".encode())
    assert exactly(stream, 4) == b"\x20\x02\x00\x00"
    stream.sendall(SUBSCRIBE)
    assert exactly(stream, 5)[0] == 0x90
    return stream


def started(command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + LIMIT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.01)


def measure(command, port, trust, connections):
    process = started(command, port)
    try:
        # What is made once, at the first connections.
        for number in range(20):
            connect(port, trust, number).close()
        before, began = memory_kib(process), cpu_s(process)
        streams = [connect(port, trust, number) for number in range(connections)]
        opened, after = cpu_s(process), memory_kib(process)
        for stream in streams:
            stream.sendall(PINGREQ)
        for stream in streams:
            exactly(stream, 2)
        pinged = cpu_s(process)
        return (after - before) / connections, (opened - began) / connections * 1e3, (pinged - opened) / connections * 1e6
    finally:
        process.kill()
        process.wait()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--connections", type=int, default=2000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--latchbus", default="target/release/latchbus")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([chosen.latchbus, "cert", directory, "127.0.0.1"], check=True, stdout=subprocess.DEVNULL)
        trust = ssl.create_default_context(cafile=os.path.join(directory, "ca.pem"))
        print("| server | | KiB a connection | CPU ms to connect | CPU µs a ping |\n|---|---|---:|---:|---:|")
        for _ in range(chosen.rounds):
            for name, make in (("Latchbus", latchbus), ("Mosquitto", mosquitto)):
                for kind in ("plain", "TLS"):
                    ports = free_port(), free_port()
                    command = make(chosen.latchbus, directory, *ports)
                    port, secure = (ports[1], trust) if kind == "TLS" else (ports[0], None)
                    figures = measure(command, port, secure, chosen.connections)
                    print(f"| {name} | {kind} | {figures[0]:.2f} | {figures[1]:.2f} | {figures[2]:.1f} |", flush=True)


main()
