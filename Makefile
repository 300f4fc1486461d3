# DA-ITN testbed. `make demo` and `make test` are all that a fresh machine needs; both set it up first when it is not.
SEED ?= 1
PY := .venv/bin/python
PYTEST := $(PY) -m pytest
MAKEFLAGS += --no-print-directory
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help docs setup setup-demo setup-unit demo test test-unit test-wire test-network test-browser lint types bench-flood bench-route bench-methods bench-transport bench-map bench-resteer bench-flipped bench-rivals bench-codec fuzz \
	install-dissector uninstall-dissector clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install all that demo and tests need (root; a second call takes under 2 s)
	@scripts/provision.sh

setup-demo:
	@scripts/provision.sh --demo

setup-unit:
	@scripts/provision.sh --unit

demo: setup-demo  ## the healthcare run, end to end (SEED=n)
	@.venv/bin/daitn run healthcare --seed $(SEED)

test: setup  ## every check: lint, types, then unit, wire, network and browser tests
	@$(PY) -m tests

test-unit: setup-unit  ## unit tests alone (no root, about two minutes)
	@$(PY) -m tests unit

test-wire: setup  ## bytes, captures, dissectors
	@$(PY) -m tests wire

test-network: setup  ## Mininet tests (root)
	@$(PY) -m tests network

test-browser: setup  ## the page in a real Chromium
	@$(PY) -m tests browser

lint: setup-unit  ## ruff: lint and format
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

types: setup-unit  ## mypy, strict on our packages
	@$(PY) -m mypy

.PHONY: coverage
coverage: setup  ## lines of packets/ and controller/ that unit and wire tests reach: the table, and what they miss
	@$(PYTEST) -n 2 --dist loadfile tests/unit tests/wire --cov --cov-report=term-missing

bench-flood: setup-demo  ## 10,000 bad packets a second beside a live transfer; the last line is JSON
	@$(PY) -m benchmarks.flood

bench-transport: setup-demo  ## goodput, loss, fairness and CPU of the transport against TCP (KEYS=1: with keys); the last line is JSON
	@$(PY) -m benchmarks.transport $(if $(KEYS),--keys)

bench-route: setup-demo  ## does the route matter? routed against random order; the last line is JSON
	@$(PY) -m benchmarks.route

bench-map: setup-demo  ## freshness of the map: a terminal's change to its entry, 100 to 1,000 terminals; last line JSON
	@$(PY) -m benchmarks.map

bench-resteer: setup-demo  ## rendezvous killed, link cut, mind changed in mid-transfer of 64 MB; the last line is JSON
	@$(PY) -m benchmarks.resteer

.PHONY: bench-faults
bench-faults: setup  ## 100 control centres killed, 100 links cut, under jobs, transfers, queries: what is lost; last line JSON
	@$(PY) -m benchmarks.faults

bench-flipped: setup-demo  ## a hospital with flipped labels, with and without MPVU gate and trust, on the network; last line JSON
	@$(PY) -m benchmarks.flipped

.PHONY: bench-aats
bench-aats: setup-demo  ## models that find their own way without control centres, beside those that are led; the last line is JSON
	@$(PY) -m benchmarks.aats

bench-rivals: setup-demo  ## four jobs at once, with plans that heed each other and without; the last line is JSON
	@$(PY) -m benchmarks.rivals

bench-codec: setup-unit  ## packets/s of the codec, single and in batches, beside Scapy; the last line is JSON
	@$(PY) -m benchmarks.codec

fuzz: setup-unit  ## coverage-guided fuzzing of all that reads packets (SECONDS=600)
	@$(PY) -m tests.fuzz --seconds $(or $(SECONDS),600)

docs: setup-unit  ## write the pages of docs/ that come from the code: CLI, metrics, the scenario's schema
	@$(PY) -m experiments.commands.reference

install-dissector:  ## AI packets in your Wireshark (no root)
	@scripts/dissector.sh install

uninstall-dissector:
	@scripts/dissector.sh uninstall

bench-methods: setup-demo  ## every training method on the network: accuracy, bytes, seconds; the last line is JSON
	@$(PY) -m benchmarks.methods

.PHONY: bench-mtrce bench-tfam bench-tag
bench-mtrce: setup-unit  ## MTRCE against exact search and OR-tools, and at 100,000 options; the last line is JSON
	@$(PY) -m benchmarks.mtrce

bench-tfam: setup-unit  ## T-FAM: are admitted requests met, do rejected ones miss? real training; the last line is JSON
	@$(PY) -m benchmarks.tfam

bench-tag: setup-unit  ## TAG against every method really trained, 24 settings; the last line is JSON
	@$(PY) -m benchmarks.tag

.PHONY: bench-steer bench-queries bench-move bench-ways bench-mdo bench-ways-offline bench-policies
bench-steer: setup  ## what steering costs queries, rules of 500 classes, queries a second beside Flask and gRPC; last line JSON
	@$(PY) -m benchmarks.steer

bench-move: setup  ## a model moved, stopped, killed under 200 queries a second: what is lost, how long it takes; last line JSON
	@$(PY) -m benchmarks.move

bench-ways: setup  ## single, split, switched, collaborative, multi-modal inference on the network; the last line is JSON
	@$(PY) -m benchmarks.ways

bench-mdo: setup-unit  ## MDO's placement against the exact optimum (OR-tools), and at 10,000 sites; the last line is JSON
	@$(PY) -m benchmarks.mdo

bench-queries: setup  ## every policy that chooses who answers, at three loads on the network, with a moving hot spot; last line JSON
	@$(PY) -m benchmarks.queries

bench-policies: setup-unit  ## policies that choose models, simulated (a design aid: bench-queries measures them); last line JSON
	@$(PY) -m benchmarks.policies_sim

bench-ways-offline: setup-unit  ## single, split, switched, collaborative, multi-modal inference without a network; last line JSON
	@$(PY) -m benchmarks.ways_offline

.PHONY: bench-border
bench-border: setup  ## border links cut and flapping, gateways killed, frozen, lying: times, lost objects; last line JSON
	@$(PY) -m benchmarks.border

.PHONY: bench-kinds
bench-kinds: setup-demo  ## the main job in networks of every kind of K-AS, and without control centres; the last line is JSON
	@$(PY) -m benchmarks.kinds

.PHONY: bench-abstraction bench-control
bench-abstraction: setup-unit  ## what abstract terminals cost routes, predicted and really trained, 20 random networks; last line JSON
	@$(PY) -m benchmarks.abstraction

bench-control: setup  ## bytes, state, seconds of control against terminals, 20 to 1,000,000, three kinds of K-AS; last line JSON
	@$(PY) -m benchmarks.control

.PHONY: bench-streams
bench-streams: setup  ## one query of many samples beside as many single ones, and when an MDFP dies in it; last line JSON
	@$(PY) -m benchmarks.streams

.PHONY: bench-text
bench-text: setup-unit  ## the text task beside TF-IDF and logistic regression, pooled; the last line is JSON
	@$(PY) -m benchmarks.text

.PHONY: bench-scale bench-faults-links
bench-scale: setup-demo  ## 20 to 500 shaped terminals up and down, beside plain Mininet; 200 with PyTorch agents; last line JSON
	@$(PY) -m benchmarks.scale

bench-faults-links: setup-demo  ## links cut under probes and transfers: how long until packets go another way; last line JSON
	@$(PY) -m benchmarks.faults_links

clean:  ## take down what runs have left standing, and the caches (keeps runs/ and .venv/)
	@[ ! -x .venv/bin/daitn ] || .venv/bin/daitn clean
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
