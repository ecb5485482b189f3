# The commands of this repository. `make` alone prints them.
.PHONY: help setup build demo test conformance check bench clean

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## install what building needs (Debian 12, as root); quick when nothing is missing. test and bench install the rest
	@scripts/setup.sh

build: setup ## leave everything a user installs under dist/bin and dist/lib
	@scripts/build.sh

demo: build ## four agents on this machine, eight ranks of MPICH and of Open MPI over them, and where the start-up time went
	@scripts/demo.sh

test: build ## every test of the workspace, those on the cluster of namespaces included
	@scripts/test.sh

conformance: build ## MPICH's and mpi4py's own test suites, under muster and under the MPIs' own launchers
	@scripts/conformance/run.sh

check: setup ## format, lints, licences and sources of dependencies, documentation
	@scripts/check.sh

bench: build ## whole-system measurements against peers
	@scripts/bench.sh

clean: ## remove build results; keeps .cache, which only costs time to fill again
	rm -rf target dist
