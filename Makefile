# Cofferdam: build, run, test. Root is needed for all but `build`; what is missing is installed by apt.

TARGET := $(shell rustc --print host-tuple 2>/dev/null)
BIN := target/$(TARGET)/release
SHIM := $(CURDIR)/$(BIN)/containerd-shim-cofferdam-v1
PREFIX ?= /usr/local
# Which tests: a part of their names.
TESTS ?=
# The core that CI runs in the virtual machine.
VM_CORE := --skip start_protocol --skip much_output --skip many_at_a_time --skip processes_that_end --skip containerd_1_6

.PHONY: build prepare run test test-unit test-integration test-v2 test-v2-core bench bench-short lint install uninstall clean help

help: ## this text
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the two binaries, in target/…/release
	cargo build --release --bins

prepare: ## installs what tests and demo need, and builds their images
	tests/prepare.sh

run: prepare build ## an nginx pod, served by the shim, on a private containerd
	COFFERDAM_SHIM=$(SHIM) cargo run --quiet --example run

test: test-unit test-integration ## all tests but the virtual machine's

test-unit: prepare
	cargo test --lib --bins

test-integration: prepare
	cargo test --test integration -- $(TESTS)

test-v2: prepare build ## the integration tests on cgroup v2, in a virtual machine under software emulation
	tests/vm/test.sh $(or $(TESTS),--skip start_protocol)

test-v2-core: prepare build
	tests/vm/test.sh $(VM_CORE)

bench: prepare build ## against containerd's own shim with runc: ratios
	COFFERDAM_SHIM=$(SHIM) cargo bench --bench compare -- --rounds 100 --json target/bench.json --check 0.5,0.3

bench-short: prepare build
	COFFERDAM_SHIM=$(SHIM) cargo bench --bench compare -- --rounds 15 --check 0.5,0.3

lint: prepare ## formatting and clippy, warnings are errors
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

install: build ## binaries and links into PREFIX/bin (default /usr/local)
	install -D -m 755 $(BIN)/containerd-shim-cofferdam-v1 $(DESTDIR)$(PREFIX)/bin/containerd-shim-cofferdam-v1
	install -D -m 755 $(BIN)/cofferdam $(DESTDIR)$(PREFIX)/bin/cofferdam
	ln -sf containerd-shim-cofferdam-v1 $(DESTDIR)$(PREFIX)/bin/containerd-shim-cofferdam-hardened-v1
	ln -sf containerd-shim-cofferdam-v1 $(DESTDIR)$(PREFIX)/bin/containerd-shim-cofferdam-untrusted-v1

uninstall: ## removes what install made
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,cofferdam $(foreach c,cofferdam cofferdam-hardened cofferdam-untrusted,containerd-shim-$(c)-v1))

clean: ## removes target/
	cargo clean
