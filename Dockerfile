# Two static binaries, the certificates of the usual authorities, nothing else.
# Sites without a registry name images of their own:
#   docker build --build-arg BUILDER=my/go:1.26 --build-arg BASE=my/empty .
ARG BUILDER=golang:1.26
ARG BASE=scratch

FROM ${BUILDER} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/ . ./send && mkdir /state

FROM ${BASE}
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/s3daemon /out/send /
# Any number will do, and fsGroup or --user may set another: the daemon needs to
# read the files that it is to push, and nothing more.
USER 65532:65532
# The journal: pushes that were accepted outlive the container only on a volume.
COPY --from=build --chown=65532:65532 /state /var/lib/s3daemon
ENV S3DAEMON_DATA_DIR=/var/lib/s3daemon
VOLUME /var/lib/s3daemon
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s CMD ["/s3daemon", "healthcheck"]
ENTRYPOINT ["/s3daemon"]
