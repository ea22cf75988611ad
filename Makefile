# The one entry. Rules are thin: the work is in the program or in scripts/.
.PHONY: demo test check release bench soak fuzz oracle

# A throw-away primary and two standbys, the proxy before them, a little traffic. ARGS="--for 20s" ends by itself.
demo:
	@scripts/install-postgresql
	@echo "Building pgweir; the first time this takes some minutes …"
	cargo build --release --locked
	@target/release/pgweir demo $(ARGS)

# All that CI runs.
test: check
	@scripts/install-postgresql
	@scripts/drivers
	scripts/test

# Format, lints, documentation, who imports whom, the example configuration, and what a transaction takes in instructions.
check:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet
	cargo test --locked --quiet --test layers
	scripts/instructions

# target/optimized/pgweir, for production: built twice, the second time with what a run under load has counted.
release:
	@scripts/install-postgresql
	scripts/optimize

# Beside PostgreSQL itself, a relay of bytes, PgBouncer, HAProxy and Pgpool-II, with what it is to cost; writes
# docs/benchmarks.md after the build, a quarter of an hour at first, and forty minutes. ARGS="--quick" takes four and writes
# nothing, "--full" hours.
bench:
	@scripts/install-postgresql
	@scripts/optimize || { [ $$? -eq 3 ] && echo "Measuring a plain build instead." && cargo build --release --locked; }
	cargo build --release --locked --manifest-path benches/relay/Cargo.toml --target-dir target/relay
	scripts/bench $(ARGS)

# Mixed clients for SOAK_MINUTES (default 30); fails if memory grows or a client fails. PGWEIR_BIN chooses the program.
soak:
	@scripts/install-postgresql
	@scripts/drivers
	@[ -n "$$PGWEIR_BIN" ] || cargo build --release --locked
	scripts/soak

# Each fuzz target for FUZZ_SECONDS (default 60).
fuzz:
	scripts/fuzz

# pgweir's verdicts beside PostgreSQL's own parser, over its regression tests and ORACLE_COUNT generated statements.
oracle:
	scripts/oracle
