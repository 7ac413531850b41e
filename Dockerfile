# Two static binaries, the certificates of the usual authorities, nothing else.
#
#   docker build .                  compiles in a container
#   make image                      compiles here, and needs no registry: stage "prebuilt"
#
# Sites without a registry name images of their own:
#   docker build --build-arg BUILDER=my/go:1.26 --build-arg BASE=my/empty .
ARG BUILDER=golang:1.26
ARG BASE=scratch

FROM ${BASE} AS config
ARG VERSION=dev
ARG REVISION=
LABEL org.opencontainers.image.title="s3daemon" \
      org.opencontainers.image.description="Delivers files of this host to S3 objects" \
      org.opencontainers.image.source="https://github.com/lsst-dm/s3daemon" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The journal: pushes that were accepted outlive the container only on a volume.
ENV S3DAEMON_DATA_DIR=/var/lib/s3daemon
VOLUME /var/lib/s3daemon
# Any number will do, and fsGroup or --user may set another: the daemon needs to
# read the files that it is to push, and to write its journal. For users that a
# platform makes up, of group 0, that group may write there too.
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s CMD ["/s3daemon", "healthcheck"]
ENTRYPOINT ["/s3daemon"]

# What make image has put together. The licence is the file that is always there:
# some builders come by here though nobody asked for this stage, and want a match.
# So without --build-arg TARGETARCH, or without that archive, it has no programs.
FROM config AS prebuilt
ARG TARGETARCH
ADD LICENSE image/linux-${TARGETARCH}.tar* /

FROM ${BUILDER} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/ . ./send && \
    mkdir -p /out/var/lib /state/s3daemon && chmod 775 /state/s3daemon && mkdir -m 1777 /out/tmp

FROM config
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/LICENSE /out/ /
COPY --from=build --chown=65532:0 /state/ /var/lib/
