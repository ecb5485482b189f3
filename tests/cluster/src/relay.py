"""Delays and loses Ethernet frames in user space, where the kernel has no netem.

plain DEV                             let DEV's owner finish checksums and segments before frames leave it
relay CABLE TAP BRIDGE DELAY LOSS     pass frames between CABLE and a new device TAP on BRIDGE
"""

import array
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

SIOCETHTOOL = 0x8946
TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x0002 | 0x1000
ETH_P_ALL = 3
# Transmit checksums, scatter-gather, TCP segmentation, generic segmentation and generic receive offload.
OFFLOADS = (0x17, 0x19, 0x1F, 0x24, 0x2C)


def plain(device):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in OFFLOADS:
            value = array.array("I", [command, 0])
            address, _ = value.buffer_info()
            try:
                fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", device.encode(), address))
            except OSError as error:
                if command == OFFLOADS[0]:
                    raise SystemExit(f"cannot turn transmit checksums off: {error}")


def relay(cable, tap, bridge, delay, loss):
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP_NO_PI))
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.bind((cable, 0))
    wire.setblocking(False)
    subprocess.run(["ip", "link", "set", tap, "master", bridge, "up"], check=True)
    sys.stdout.write("\n")
    sys.stdout.flush()

    queue, number = [], 0
    while True:
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, _, send, frame = heapq.heappop(queue)
            try:
                send(frame)
            except OSError:
                pass  # a full or missing device loses frames, as wires do
        wait = max(0.0, queue[0][0] - now) if queue else None
        readable, _, _ = select.select([tun, wire, sys.stdin], [], [], wait)
        if sys.stdin in readable:
            return  # the other end of the pipe is gone, and with it the cluster
        for source in readable:
            try:
                if source is wire:
                    frame, origin = wire.recvfrom(65535)
                    if origin[2] == socket.PACKET_OUTGOING:
                        continue
                    send = lambda data: os.write(tun, data)
                else:
                    frame, send = os.read(tun, 65535), wire.send
            except OSError:
                continue
            if random.random() >= loss:
                heapq.heappush(queue, (time.monotonic() + delay, number, send, frame))
                number += 1


if sys.argv[1] == "plain":
    plain(sys.argv[2])
else:
    relay(sys.argv[2], sys.argv[3], sys.argv[4], float(sys.argv[5]), float(sys.argv[6]))
