# syntax=docker/dockerfile:1

# A statically linked hornbook in an otherwise empty image.
#
#   docker build --build-arg COMMIT="$(git rev-parse HEAD)" -t hornbook .
#   docker run --rm -p 127.0.0.1:8080:8080 hornbook          the OpenAI API at http://127.0.0.1:8080/v1
#   docker run --rm -i hornbook generate "Once upon a time"
#
# By default no API key is required: publish the port on the loopback interface only, as above, or provide keys:
#
#   docker run -p 8080:8080 -v ./keys.toml:/keys.toml:ro hornbook serve --host 0.0.0.0 --keys /keys.toml
#
# Models are downloaded into the volume:
#
#   docker run --rm -v hornbook-models:/models hornbook pull gpt2
#   docker run --rm -v hornbook-models:/models -p 127.0.0.1:8080:8080 hornbook serve --host 0.0.0.0 --no-auth --model gpt2

FROM rust:1.93-alpine AS build
WORKDIR /src
COPY . .
ARG COMMIT=""
ENV CARGO_PROFILE_RELEASE_STRIP=symbols
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    HORNBOOK_COMMIT="$COMMIT" cargo build --release --locked \
    && install -D target/release/hornbook /image/hornbook \
    && install -d /image/models

FROM scratch
COPY --from=build --chown=65532:65532 /image /
USER 65532:65532
ENV HF_HOME=/models
VOLUME /models
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/hornbook", "health"]
ENTRYPOINT ["/hornbook"]
CMD ["serve", "--host", "0.0.0.0", "--no-auth"]
