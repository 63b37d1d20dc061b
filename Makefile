# Cofferdam: build, run, test. `build` and the group "Check a change" up to `doc` need neither root nor apt; the rest needs root, and installs
# what is missing by apt.

TARGET := $(shell rustc --print host-tuple 2>/dev/null)
BIN := target/$(TARGET)/release
SHIM := $(CURDIR)/$(BIN)/containerd-shim-cofferdam-v1
PREFIX ?= /usr/local
# Which tests: a part of their names.
TESTS ?=
# The core that CI runs in the virtual machine: what depends on the kernel, on its control groups, or on systemd. The rest says the same
# on every node, and runs there by `make test-v2`.
VM_CORE := --skip start_protocol --skip much_output --skip many_at_a_time --skip processes_that_end --skip containerd_1_6 \
	--skip ::hardened:: --skip ::untrusted:: --skip kubelet_elsewhere \
	$(foreach group,bad_input broken check cli denials documents explain features learn lifecycle stdio streams trace,--skip $(group)::)

DENY := target/tools/bin/cargo-deny
DENY_VERSION := 0.20.2

SPECS ?= 20000
SPECS_FROM ?= 0

FUZZ := spec seccomp floor
FUZZ_SECONDS ?= 600
# libFuzzer's instrumentation, which a stable compiler has too.
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions

.PHONY: build check deny deny-advisories doc prepare run pictures test test-unit test-integration test-v2 test-v2-core test-v2-floor edges differ differ-v2 fuzz stress bench bench-tools bench-short bench-v2 count count-write lint install uninstall clean help

help: ## this text
	@awk -F ':.*## ' '/^##@ / { print "\n" substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Build and try
build: ## the two binaries, in target/…/release
	cargo build --release --bins

prepare: ## installs what tests and demo need, and builds their images
	tests/prepare.sh

run: prepare build ## pods in each isolation class on a private containerd, and what cofferdam shows of them
	COFFERDAM_SHIM=$(SHIM) COFFERDAM_CLI=$(CURDIR)/$(BIN)/cofferdam cargo run --quiet --example run

pictures: prepare build ## docs/pictures, from a real run
	COFFERDAM_SHIM=$(SHIM) COFFERDAM_CLI=$(CURDIR)/$(BIN)/cofferdam cargo run --quiet --example run -- docs/pictures

##@ Check a change
check: lint test-unit doc ## format, lints, unit tests and documentation: needs neither root nor apt

doc: ## the documentation of the code, warnings are errors
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --quiet --no-deps --document-private-items --lib

test: test-unit test-integration ## all tests but the virtual machine's

test-unit: ## the tests that need neither root nor a daemon
	cargo test --features sabotage --lib --bins

test-integration: prepare ## the integration tests here, on each containerd; TESTS= is a part of their names
	cargo test --features sabotage --test integration -- $(TESTS)

deny: $(DENY) ## licences, sources and bans of the dependencies (deny.toml)
	$(DENY) check licenses bans sources

deny-advisories: $(DENY) ## known vulnerabilities of the dependencies; needs the RustSec database on GitHub
	$(DENY) check advisories

$(DENY):
	cargo install cargo-deny --version $(DENY_VERSION) --locked --root target/tools

##@ Test elsewhere and longer
test-v2: prepare build ## the integration tests on cgroup v2, in a virtual machine under software emulation
	VM_MACHINES=$(if $(TESTS),1,2) tests/vm/test.sh $(or $(TESTS),--skip start_protocol)

test-v2-core: prepare build ## the part of them that CI runs
	VM_MACHINES=2 tests/vm/test.sh $(VM_CORE)

test-v2-floor: prepare build ## the OCI tests on Linux 5.10, the oldest kernel that we run on, in a virtual machine
	VM_KERNEL=bullseye COFFERDAM_ONLY=oci,features,task_api tests/vm/test.sh $(TESTS)

edges: prepare build ## situations of public bug reports, on the command line, the shim and as an ordinary user; what runc does otherwise is printed
	@rm -f target/edges.txt
	COFFERDAM_SHIM=$(SHIM) COFFERDAM_CLI=$(CURDIR)/$(BIN)/cofferdam COFFERDAM_BESIDE=$(CURDIR)/target/edges.txt \
		PATH=$(CURDIR)/target/test/runc:$$PATH cargo test --features sabotage --test integration -- edges::
	@echo "What runc does otherwise:" && cat target/edges.txt 2>/dev/null || echo nothing

differ: prepare build ## SPECS (20,000) unusual specs, each run by runc and by Cofferdam; differences that are not known are printed
	cargo build --example differ --features sabotage
	target/$(TARGET)/debug/examples/differ --from $(SPECS_FROM) --count $(SPECS) --runc target/test/runc/runc --cofferdam $(BIN)/cofferdam --keep target/differ

differ-v2: prepare build ## the same on cgroup v2, in two virtual machines (SPECS=2000 takes an hour)
	VM_MACHINES=2 tests/vm/differ.sh --from $(SPECS_FROM) --count $(SPECS)

stress: prepare build ## 5,000 containers and 5,000 execs that end at once, 16 at a time
	COFFERDAM_SHIM=$(SHIM) COFFERDAM_STRESS=5000 cargo test --features sabotage --test integration -- stress::

fuzz: prepare ## each fuzz target for FUZZ_SECONDS (600)
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --release --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --target $(TARGET)
	@for target in $(FUZZ); do \
		mkdir -p fuzz/corpus/$$target fuzz/artifacts/$$target; \
		target/fuzz/$(TARGET)/release/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -timeout=10 -print_final_stats=1 \
			-artifact_prefix=fuzz/artifacts/$$target/ fuzz/corpus/$$target fuzz/seeds/$$target 2>&1 | tail -n 12 || exit 1; \
	done

##@ Measure
# How the benchmark's client is built. In CI as the tests are, whose dependencies it shares: it is no measurement there.
CLIENT := compare
COMPARE = target/$(TARGET)/$(if $(filter dev,$(CLIENT)),debug,$(CLIENT))
COMPARED = COFFERDAM_SHIM=$(SHIM) COFFERDAM_CLI=$(CURDIR)/$(BIN)/cofferdam COFFERDAM_NOTHING=$(CURDIR)/$(COMPARE)/examples/nothing \
	COFFERDAM_FLOOR=$(CURDIR)/$(COMPARE)/examples/floor
BENCH = $(COMPARED) cargo bench --profile $(CLIENT) --features sabotage --bench compare --

bench-tools: prepare build
	cargo build --profile $(CLIENT) --features sabotage --example nothing --example floor

bench: bench-tools ## everything, into docs/benchmarks.md: against runc, a shim that does nothing, runsc and the bare kernel: 15 minutes
	tests/prepare.sh runsc
	$(BENCH) --json docs/benchmarks.json --pictures docs/pictures --document docs/benchmarks.md --check

bench-short: CLIENT := dev
bench-short: bench-tools ## a short one, which CI runs
	$(BENCH) --short --check

bench-v2: bench-tools ## starts alone, on cgroup v2 in the virtual machine, with crun beside runc
	$(COMPARED) tests/vm/bench.sh docs/benchmarks-v2.json --short --rounds 15
	$(BENCH) --from docs/benchmarks-v2.json --document docs/benchmarks.md --mark "figures of cgroup v2"

count: ## instructions of a plan, a profile, a filter and a request, against benches/instructions: the same on a busy machine
	tests/prepare.sh valgrind
	cargo build --release --features sabotage --example count
	benches/count.sh $(BIN)/examples/count $(COUNT)

count-write: ## writes benches/instructions anew
	$(MAKE) count COUNT=--write

##@ Format, install, clean
lint: ## formatting and clippy, warnings are errors
	cargo fmt --check
	cargo clippy --all-targets --features sabotage -- -D warnings
	cargo clippy --lib --bins -- -D warnings

install: build ## programs, links, manual pages and completions into PREFIX (/usr/local)
	install -D -m 755 $(BIN)/containerd-shim-cofferdam-v1 $(DESTDIR)$(PREFIX)/bin/containerd-shim-cofferdam-v1
	install -D -m 755 $(BIN)/cofferdam $(DESTDIR)$(PREFIX)/bin/cofferdam
	ln -sf containerd-shim-cofferdam-v1 $(DESTDIR)$(PREFIX)/bin/containerd-shim-cofferdam-hardened-v1
	ln -sf containerd-shim-cofferdam-v1 $(DESTDIR)$(PREFIX)/bin/containerd-shim-cofferdam-untrusted-v1
	$(BIN)/cofferdam man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(BIN)/cofferdam completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/cofferdam

uninstall: ## removes what install made
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,cofferdam $(foreach c,cofferdam cofferdam-hardened cofferdam-untrusted,containerd-shim-$(c)-v1))
	rm -f $(DESTDIR)$(PREFIX)/share/man/man1/cofferdam*.1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions/cofferdam

clean: ## removes target/
	cargo clean
