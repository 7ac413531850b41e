# make            build the binaries into bin/
# make test       all tests: unit tests with the race detector, then e2e/ on the built binaries
# make e2e-full   e2e/ at full size: hundreds of large files at once, a huge one, long outages, a million queued pushes
# make e2e-chaos  the daemon killed at random for 200 rounds, with a sound store and with a faulty one
# make e2e-faults every fault alone; 2,000 pushes with random ones, for three seeds, and again with daemons that are killed;
#                 2,000 asked for twice; a link that is lost for 30 s
# make e2e-resume the daemon killed and restarted while 1 GiB and 6 GiB are on their way: how much is sent twice
# make e2e-attack ten minutes of random requests, valid and not, by many callers, with health asked for all along
# make conformance, make conformance-ceph
#                 pushes of all kinds with every checksum, and contests for one object, on two stores, and on a Ceph RGW of
#                 Debian's packages; prints a table
# make e2e-k8s    the image and the chart on the cluster that kubectl knows; see e2e/k8s
# make chart      the Helm chart: what it makes of a matrix of values, without a cluster
# make lint       gofmt, go vet, staticcheck
# make fuzz       every fuzz target for FUZZTIME
# make bench      throughput and CPU against a bare PUT; see bench/README.md
# make bench-wan, make bench-wan-full
#                 pushes over an emulated long link against its limit, as root; see bench/wan/README.md
# make demo       the demo
# make image      the container image IMAGE for ARCH (amd64, arm64), by docker or what CONTAINER names (buildah); no
#                 registry is needed. For another ARCH than this host's docker needs BuildKit (its plugin buildx)
# make images     both, with -amd64 and -arm64 behind IMAGE; by buildah also IMAGE, which lists them
# make e2e-image  the image made and tried, by docker

VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -s -w -X main.version=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 60s
CONTAINER   ?= docker
ARCH        ?= $(shell go env GOARCH)
IMAGE       ?= s3daemon:$(VERSION)
REVISION    ?= $(shell git rev-parse HEAD 2>/dev/null)
CA_BUNDLE   ?= /etc/ssl/certs/ca-certificates.crt
# An image of OCI's own format has no HEALTHCHECK.
DOCKER_FORMAT := $(if $(filter buildah,$(notdir $(CONTAINER))),--format docker)
# The classic builder of docker makes images for the ARCH of its host alone.
FOREIGN     := $(if $(DOCKER_FORMAT),,$(filter-out $(shell go env GOHOSTARCH),$(ARCH)))
OR_SAY      := $(if $(FOREIGN),|| { echo "ARCH=$(ARCH) is not this host's: docker needs its plugin buildx; or set CONTAINER=buildah" >&2; exit 1; })
FAULTS      := ^Test(EachFault|FlippedBit|WrongAnswers|RandomFaults|FaultsAndKills|Idempotency|Link.*)$$

.PHONY: build test unit e2e e2e-full e2e-chaos e2e-faults e2e-resume e2e-attack e2e-k8s conformance conformance-ceph chart lint fuzz bench bench-wan bench-wan-full demo image images e2e-image clean

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ . ./send

test: unit e2e

# The longest first, so that the others run beside it and not before it.
unit:
	go test -race ./uploader ./...

# Never from the cache, which does not know that the tests build the binaries.
# What may run side by side mostly waits: on two processors too there is room for
# more than two.
e2e:
	cd e2e && go test -count=1 -timeout 40m -parallel 4 ./...

e2e-full:
	cd e2e && S3DAEMON_E2E_FULL=1 go test -v -count=1 -timeout 2h ./...

e2e-chaos:
	cd e2e && S3DAEMON_E2E_ROUNDS=200 go test -v -count=1 -timeout 1h -run TestChaos ./...

e2e-faults:
	cd e2e && S3DAEMON_E2E_FULL=1 go test -v -count=1 -timeout 1h -run '$(FAULTS)' ./...

e2e-resume:
	cd e2e && S3DAEMON_E2E_FULL=1 go test -v -count=1 -timeout 30m -run TestResume ./...

e2e-attack:
	cd e2e && S3DAEMON_ATTACK_TIME=10m go test -v -count=1 -timeout 30m -run TestAttackLoad ./...

e2e-k8s:
	cd e2e && S3DAEMON_E2E_KUBE=1 go test -v -count=1 -timeout 1h -parallel 4 ./k8s

conformance:
	cd e2e && S3DAEMON_E2E_FULL=1 go test -v -count=1 -timeout 30m -run TestConformance ./...

conformance-ceph:
	cd e2e && S3DAEMON_E2E_FULL=1 ceph/run.sh go test -v -count=1 -timeout 1h -run TestConformance/ceph ./...

# With all of go vet, so that the hundreds of packages are gone through once; and
# without staticcheck, which would take longer than all the rest.
chart:
	cd e2e/chart && go test -vet=all -count=1 ./...

lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt these: $$unformatted" >&2; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	cd e2e && go vet ./... && go run $(STATICCHECK) ./...
	GOOS=darwin go vet . ./api ./journal ./push ./source ./transport ./uploader ./send/...

# One after another, as they are found, and all of them even if one fails.
fuzz:
	@failed=; for target in $$(grep -rEo --include='*_test.go' --exclude-dir=e2e '^func Fuzz[A-Za-z0-9]+' . | sed 's/func //' | sort); do \
		dir=$$(dirname "$${target%%:*}"); name=$${target##*:}; echo "$$dir $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x "$$dir" || failed="$$failed $$name"; \
	done; if [ -n "$$failed" ]; then echo "these found something:$$failed" >&2; exit 1; fi

bench:
	go run ./bench

# Not by go run, which does not pass on a signal: the benchmark has the host to set back.
bench-wan:
	go build -o bin/wan ./bench/wan
	bin/wan

bench-wan-full:
	go build -o bin/wan ./bench/wan
	bin/wan -full

demo:
	go run . demo

# The whole of the image's files is an archive, in which owners and modes are what
# they are to be, whoever runs this.
image: FILES := image/linux-$(ARCH)
image:
	rm -rf $(FILES) $(FILES).tar
	mkdir -p $(FILES)/etc/ssl/certs $(FILES)/var/lib/s3daemon $(FILES)/tmp
	CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -trimpath -ldflags '$(LDFLAGS)' -o $(FILES)/ . ./send
	cp $(CA_BUNDLE) $(FILES)/etc/ssl/certs/ca-certificates.crt
	chmod -R u=rwX,go=rX $(FILES)
	chmod 775 $(FILES)/var/lib/s3daemon
	chmod 1777 $(FILES)/tmp
	cd $(FILES) && tar --owner=0 --group=0 --exclude=var/lib/s3daemon -cf ../linux-$(ARCH).tar * && \
		tar --owner=65532 --group=0 -rf ../linux-$(ARCH).tar var/lib/s3daemon
	$(if $(FOREIGN),DOCKER_BUILDKIT=1) $(CONTAINER) build $(DOCKER_FORMAT) --platform linux/$(ARCH) --target prebuilt --build-arg TARGETARCH=$(ARCH) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) -t $(IMAGE) . $(OR_SAY)

images:
	$(MAKE) image ARCH=amd64 IMAGE=$(IMAGE)-amd64
	$(MAKE) image ARCH=arm64 IMAGE=$(IMAGE)-arm64
ifneq ($(DOCKER_FORMAT),)
	$(CONTAINER) manifest rm $(IMAGE) 2>/dev/null || true
	$(CONTAINER) manifest create $(IMAGE)
	$(CONTAINER) manifest add $(IMAGE) $(IMAGE)-amd64
	$(CONTAINER) manifest add $(IMAGE) $(IMAGE)-arm64
endif

e2e-image: image
	cd e2e && S3DAEMON_E2E_IMAGE=$(IMAGE) go test -v -count=1 -timeout 10m -run TestImage .

clean:
	rm -rf bin image
