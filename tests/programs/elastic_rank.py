#!/usr/bin/env python3
# elastic_rank DIR: what a worker of elastic Horovod does as far as its launcher sees it, without a framework. It says
# which rank it is; when DIR/again appears, it asks the launcher which one it is now, as the library does when a peer is
# gone, and that waits for all others; when DIR/done appears, it ends well.
import os
import sys
import time
import urllib.request

folder = sys.argv[1]
host, local_rank = os.environ["HOROVOD_HOSTNAME"], os.environ["HOROVOD_LOCAL_RANK"]


def is_there(name):
    return os.path.exists(os.path.join(folder, name))


def say(when, rank, size):
    print(f"{when}: rank {rank} of {size} on {host}", flush=True)


def asked():
    address = os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"]
    url = "http://%s:%s/rank_and_size/%s:%s" % (*address, host, local_rank)
    # Nobody's proxy is meant.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as answer:
        return answer.read().decode().split(",")[:2]


is_first = not is_there("again")
say("first" if is_first else "later", os.environ["HOROVOD_RANK"], os.environ["HOROVOD_SIZE"])
while not is_there("done"):
    if is_first and is_there("again"):
        is_first = False
        say("again", *asked())
    time.sleep(0.05)
