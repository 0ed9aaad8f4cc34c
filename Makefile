# `make` lists the targets.

ARCH ?= x86_64
EVENT ?= events/stripe-payment.json
VENV := target/venv
DYNAMODB := target/dynamodb-local
# cargo-lambda finds zig, its linker, beside itself.
CARGO_LAMBDA := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cargo-lambda lambda
DEBIAN_PACKAGES := gcc make python3-venv redis-server default-jre-headless npm

.DEFAULT_GOAL := help
.PHONY: help demo demo-stay run test check build invoke watch parity clean

help: ## List the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: ## Show the main job on this machine.
	cargo build --locked
	target/debug/webhook-router demo

demo-stay: ## The same, and keep its servers running for trying by hand.
	cargo build --locked
	target/debug/webhook-router demo --stay

run: ## Serve on 127.0.0.1:8080 (see README.md for the variables).
	cargo build --locked
	target/debug/webhook-router serve

test: $(VENV)/ready $(DYNAMODB)/ready ## Install what the tests need, and run them all.
	cargo test --locked

check: ## Formatting and lints.
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet

build: $(VENV)/ready ## Build both functions for Lambda; ARCH=x86_64 or arm64.
	$(CARGO_LAMBDA) build --locked --release --output-format zip $(if $(filter arm64,$(ARCH)),--arm64,--x86-64)

watch: $(VENV)/ready ## Run both functions in an emulator on port 9000, with an empty store.
	rm -f target/webhook-router.db*
	$(CARGO_LAMBDA) watch --invoke-address 127.0.0.1 --env-file events/local.env

invoke: $(VENV)/ready ## Send EVENT=events/....json to the function of `make watch`.
	$(CARGO_LAMBDA) invoke --invoke-address 127.0.0.1 webhook-router --data-file $(EVENT)

parity: $(VENV)/ready ## Look for disagreements with the Python reference.
	PARITY_BODIES=100000 PARITY_TIMESTAMPS=100000 cargo test --locked --test it parity -- --nocapture

clean: ## Remove all that was built or installed here.
	cargo clean

# The Python packages that the tests use: the reference's, and cargo-lambda with zig.
$(VENV)/ready: tests/requirements.txt
	@python3 -c 'import ensurepip' 2>/dev/null && command -v cc >/dev/null && command -v redis-cli >/dev/null && command -v redis-server >/dev/null && command -v java >/dev/null && command -v npm >/dev/null || $(MAKE) --no-print-directory packages
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
	touch $@

# AWS's DynamoDB Local, which this package carries.
$(DYNAMODB)/ready: $(VENV)/ready
	rm -rf $(DYNAMODB) && mkdir -p $(DYNAMODB)
	cd $(DYNAMODB) && npm pack --silent amplify-dynamodb-simulator@2.9.30
	tar -xzf $(DYNAMODB)/*.tgz -C $(DYNAMODB) --strip-components=2 package/emulator
	rm $(DYNAMODB)/*.tgz
	touch $@

.PHONY: packages
packages:
	@if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -qq -y $(DEBIAN_PACKAGES); \
	elif command -v sudo >/dev/null; then sudo apt-get update -qq && sudo apt-get install -qq -y $(DEBIAN_PACKAGES); \
	else echo "Install these Debian packages, then try again: $(DEBIAN_PACKAGES)" >&2; exit 1; fi
