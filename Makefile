# kaji: a whole Kubernetes in one program. `make help` lists the targets.

VERSION   ?= v1.37.2+kaji
GO        ?= go
# kustomize's Go plug-ins would need dlopen, which a static program has not.
TAGS      := netgo,osusergo,seccomp,kustomize_disable_go_plugin_support
COMMIT    := $(shell git rev-parse HEAD 2>/dev/null)
STAMP     := -X k8s.io/component-base/version.gitVersion=$(VERSION) -X k8s.io/component-base/version.gitMajor=1 \
             -X k8s.io/component-base/version.gitMinor=37 -X k8s.io/component-base/version.gitCommit=$(COMMIT) \
             -X k8s.io/component-base/version.gitTreeState=clean \
             -X k8s.io/client-go/pkg/version.gitVersion=$(VERSION) -X k8s.io/client-go/pkg/version.gitCommit=$(COMMIT)
LDFLAGS   := -s -w $(STAMP)
KUBECTL   := internal/app/kubectl/assets/kubectl.zst
BOX       := internal/app/image/assets/box.zst
HELPERS   := internal/container/oci/assets/kaji-init.zst
MAIN      := cmd/front/assets/main.zst
PACK      := $(wildcard tools/pack/*.go internal/app/packed/packed.go)

# One set of flags for building and testing: both then share the build cache.
export CGO_ENABLED = 1
export GOFLAGS     = -trimpath -buildvcs=false -tags=$(TAGS)

.PHONY: all
all: build

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: bin/kaji ## build bin/kaji with everything inside

bin/kaji: $(MAIN) $(KUBECTL) FORCE
	CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o $@ ./cmd/front

$(MAIN): bin/kaji-main
	$(GO) run ./tools/pack $< $@

bin/kaji-main: $(KUBECTL) $(BOX) $(HELPERS) deps-build FORCE
	$(GO) build -ldflags '$(LDFLAGS) -extldflags=-static' -o $@ ./cmd/kaji

$(KUBECTL): go.mod cmd/kubectl/main.go $(PACK) | bin deps-build
	$(GO) build -ldflags '$(LDFLAGS) -extldflags=-static' -o bin/kubectl ./cmd/kubectl
	$(GO) run ./tools/pack bin/kubectl $@

$(HELPERS): go.mod $(wildcard cmd/kaji-init/*) $(PACK) | bin deps-build
	$(GO) build -ldflags '-s -w -extldflags=-static' -o bin/kaji-init ./cmd/kaji-init
	$(GO) run ./tools/pack bin/kaji-init $@

$(BOX): go.mod $(wildcard cmd/box/*) $(PACK) | bin
	CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o bin/box ./cmd/box
	$(GO) run ./tools/pack bin/box $@

bin:
	mkdir -p $@

FORCE:

.PHONY: up
up: build ## build, then start a cluster on this machine (as root)
	bin/kaji up

.PHONY: down
down: ## stop the cluster
	bin/kaji down

.PHONY: deps-build
deps-build: ## install what the build needs (Debian; as root)
	@test -e /usr/include/seccomp.h && command -v pkg-config >/dev/null || ./tools/install libseccomp-dev pkg-config gcc libc6-dev

.PHONY: deps-test
deps-test: deps-build ## install what the tests need (Debian; as root)
	@for c in nft curl jq conntrack iptables fuse-overlayfs; do command -v $$c >/dev/null || exec ./tools/install nftables curl jq conntrack iptables fuse-overlayfs; done
	@test -e /usr/lib/cni/bridge || ./tools/install containernetworking-plugins

.PHONY: test
test: deps-test build ## run every test
	$(GO) vet ./...
	GO="$(GO)" ./tools/test -timeout 20m ./...

.PHONY: lint
lint: ## formatting and vet
	@test -z "$$(gofmt -l cmd internal kajitest tools test bench 2>/dev/null)" || (gofmt -l cmd internal; exit 1)
	$(GO) vet ./...

.PHONY: clean
clean: ## remove what the build made
	rm -rf bin $(KUBECTL) $(BOX) $(HELPERS) $(MAIN)
