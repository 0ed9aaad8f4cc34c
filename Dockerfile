# An image of the router for Cloud Run and other container platforms. docs/deploy.md says which variables
# it needs. Lambda takes the zip of `make build` instead.
#
#     docker build --tag webhook-router .

FROM rust:1.95.0-slim-bookworm AS build
# The compiler of the image: rust-toolchain.toml would download the newest stable one.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN cargo build --locked --release --bin webhook-router

# It has glibc, the public CAs and a user without privileges, and no shell. Build and image use the same
# Debian release, so that their glibc agrees.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/webhook-router /usr/local/bin/webhook-router
# With PORT set, `serve` listens on all addresses. Cloud Run sets it to its own choice.
ENV PORT=8080
EXPOSE 8080
# Probes: /healthz says that the process is up, /readyz that the store answers.
ENTRYPOINT ["/usr/local/bin/webhook-router"]
CMD ["serve"]
