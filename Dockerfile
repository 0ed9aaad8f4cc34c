# An image of the router for Cloud Run and other container platforms. docs/deploy.md lists the variables
# that it needs. For Lambda, use the zip of `make build` instead.
#
#     docker build --tag webhook-router .

FROM rust:1.95.0-slim-bookworm AS build
# Uses the image's compiler. Otherwise rust-toolchain.toml would download the newest stable one.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN cargo build --locked --release --bin webhook-router

# This image has glibc, the public CAs and a user without privileges, but no shell. Both images use the
# same Debian release, so that the versions of glibc match.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/webhook-router /usr/local/bin/webhook-router
# With PORT, `serve` listens on all IPv4 addresses. Cloud Run overrides this value.
ENV PORT=8080
EXPOSE 8080
# Probes: /healthz says that the process is up, /readyz that the store answers.
ENTRYPOINT ["/usr/local/bin/webhook-router"]
CMD ["serve"]
