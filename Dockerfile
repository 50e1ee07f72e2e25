# The image of the server, which is also the agent beside each Triton.
# tests/cluster reads the last stage to make the image of the tests without Docker, so that both hold the same files.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release --package tms-server

# The C library, certificates and time zones, and no shell.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/tms-server /usr/local/bin/tms-server
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/tms-server"]
