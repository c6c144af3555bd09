// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/podnet"
)

// brokenNetwork can neither connect nor, at first, disconnect.
type brokenNetwork struct {
	stuck bool
	downs int
}

func (n *brokenNetwork) Setup(context.Context, podnet.Sandbox) (*podnet.Result, error) {
	return nil, errors.New("no address is free")
}

func (n *brokenNetwork) Teardown(context.Context, podnet.Sandbox) error {
	n.downs++
	if n.stuck {
		return errors.New("the plug-in is gone")
	}
	return nil
}

func (n *brokenNetwork) Check(context.Context, podnet.Sandbox) (*podnet.Result, error) {
	return nil, errors.New("not connected")
}
func (n *brokenNetwork) Ready(context.Context) error                       { return nil }
func (n *brokenNetwork) SetPodCIDRs(context.Context, []netip.Prefix) error { return nil }

func sandboxConfig(name string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name}, Hostname: name}
}

// TestNetworkFails leaves nothing of a pod that cannot be connected, and keeps,
// stopped, one that cannot be disconnected either, over a restart too.
func TestNetworkFails(t *testing.T) {
	dir := directory(t)
	network := &brokenNetwork{}
	r := open(t, dir)
	r.cfg.Network = network
	stop := run(t, r)
	req := &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("unlucky")}
	if _, err := r.RunPodSandbox(t.Context(), req); err == nil || !strings.Contains(err.Error(), "failed to setup network for sandbox") {
		t.Errorf("RunPodSandbox: %v", err)
	}
	if network.downs != 1 {
		t.Errorf("disconnected %d times", network.downs)
	}
	empty(t, dir)
	network.stuck = true
	if _, err := r.RunPodSandbox(t.Context(), req); err == nil || !strings.Contains(err.Error(), "failed to destroy network for sandbox") {
		t.Errorf("RunPodSandbox: %v", err)
	}
	stop()
	r = open(t, dir)
	r.cfg.Network = network
	run(t, r)
	list, err := r.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(list.GetItems()) != 1 || list.GetItems()[0].GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Fatalf("after the failure: %v, %v", list, err)
	}
	id := list.GetItems()[0].GetId()
	if r.sandboxes[id].record.Load().MonitorPid.alive() {
		t.Error("its monitor lives")
	}
	if _, err := r.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err == nil {
		t.Error("stopped although the network fails")
	}
	network.stuck = false
	removeAll(t, r)
	empty(t, dir)
}

// TestRefused refuses what cannot be, and leaves nothing of it.
func TestRefused(t *testing.T) {
	dir := directory(t)
	r := open(t, dir)
	run(t, r)
	for _, mode := range []runtimeapi.NamespaceMode{runtimeapi.NamespaceMode_CONTAINER, runtimeapi.NamespaceMode_TARGET} {
		config := sandboxConfig("userns")
		config.Linux = &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{UsernsOptions: &runtimeapi.UserNamespace{Mode: mode}}}}
		if _, err := r.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("user namespace of mode %v: %v", mode, err)
		}
	}
	image := pull(t, r)
	sandbox, pod := runSandbox(t, r, "volume")
	_, err := r.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, SandboxConfig: pod,
		Config: &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "x"}, Image: &runtimeapi.ImageSpec{Image: image},
			Mounts: []*runtimeapi.Mount{{ContainerPath: "/data", Readonly: true, Image: &runtimeapi.ImageSpec{Image: image}, ImageSubPath: "not/there"}}}})
	if err == nil || strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("a sub path that is not there: %v", err)
	}
	removeAll(t, r)
	empty(t, dir)
}
