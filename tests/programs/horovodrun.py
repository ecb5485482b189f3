#!/usr/bin/env python3
# horovodrun without a framework: Horovod's launcher as it is released. The library that it launches jobs for is built
# against PyTorch, TensorFlow or MXNet, and the launcher asks it whether it has MPI and Gloo; here the answer is yes, and
# ranks are programs that do not need it.
import sys

from horovod.runner import launch

launch.mpi_built = launch.gloo_built = lambda verbose=False: True
# Processes that it starts read this file again.
if __name__ == "__main__":
    sys.exit(launch.run_commandline())
