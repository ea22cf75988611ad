# pgweir in a small image. The build needs a C compiler and CMake for aws-lc.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /pgweir
COPY . .
# A plain build: `make release` makes one that costs a tenth less, and takes three times as long.
RUN cargo build --release --locked --bin pgweir

FROM debian:bookworm-slim
RUN useradd --system --no-create-home pgweir
COPY --from=build /pgweir/target/release/pgweir /usr/local/bin/pgweir
USER pgweir
EXPOSE 6432 9632
# SIGTERM drains: sessions finish, new clients are turned away.
STOPSIGNAL SIGTERM
ENTRYPOINT ["pgweir"]
CMD ["run", "/etc/pgweir/proxy.toml"]
