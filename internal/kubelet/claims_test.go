// SPDX-License-Identifier: Apache-2.0

package kubelet_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	drav1 "k8s.io/kubelet/pkg/apis/dra/v1"
	registrationv1 "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"kaji/internal/client"
)

// claimer is a driver of dynamic resource allocation whose devices are environment
// variables.
type claimer struct {
	drav1.UnimplementedDRAPluginServer
	registrationv1.UnimplementedRegistrationServer
	socket     string
	registered chan *registrationv1.RegistrationStatus
	calls      chan string
}

func (c *claimer) GetInfo(context.Context, *registrationv1.InfoRequest) (*registrationv1.PluginInfo, error) {
	return &registrationv1.PluginInfo{Type: registrationv1.DRAPlugin, Name: "dra.example.com", Endpoint: c.socket, SupportedVersions: []string{drav1.DRAPluginService}}, nil
}

func (c *claimer) NotifyRegistrationStatus(_ context.Context, s *registrationv1.RegistrationStatus) (*registrationv1.RegistrationStatusResponse, error) {
	c.registered <- s
	return &registrationv1.RegistrationStatusResponse{}, nil
}

func (c *claimer) NodePrepareResources(_ context.Context, q *drav1.NodePrepareResourcesRequest) (*drav1.NodePrepareResourcesResponse, error) {
	r := &drav1.NodePrepareResourcesResponse{Claims: map[string]*drav1.NodePrepareResourceResponse{}}
	for _, one := range q.Claims {
		c.calls <- "prepare " + one.Name
		r.Claims[one.Uid] = &drav1.NodePrepareResourceResponse{Devices: []*drav1.Device{{RequestNames: []string{"r"}, PoolName: "n1", DeviceName: "d1", CdiDeviceIds: []string{"example.com/dra=d1"}}}}
	}
	return r, nil
}

func (c *claimer) NodeUnprepareResources(_ context.Context, q *drav1.NodeUnprepareResourcesRequest) (*drav1.NodeUnprepareResourcesResponse, error) {
	r := &drav1.NodeUnprepareResourcesResponse{Claims: map[string]*drav1.NodeUnprepareResourceResponse{}}
	for _, one := range q.Claims {
		c.calls <- "unprepare " + one.Name
		r.Claims[one.Uid] = &drav1.NodeUnprepareResourceResponse{}
	}
	return r, nil
}

func next[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}

// startClaimer registers the driver, and tells the runtime of its device.
func (r *real) startClaimer() *claimer {
	r.t.Helper()
	c := &claimer{socket: filepath.Join(r.root, "dra.sock"), registered: make(chan *registrationv1.RegistrationStatus, 8), calls: make(chan string, 8)}
	cdi, registry := filepath.Join(filepath.Dir(r.root), "cdi"), filepath.Join(r.root, "plugins_registry")
	for _, dir := range []string{cdi, registry} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
	spec := `{"cdiVersion": "0.6.0", "kind": "example.com/dra", "devices": [{"name": "d1", "containerEdits": {"env": ["CLAIMED=d1"]}}]}`
	if err := os.WriteFile(filepath.Join(cdi, "dra.json"), []byte(spec), 0o600); err != nil {
		r.t.Fatal(err)
	}
	s := grpc.NewServer()
	drav1.RegisterDRAPluginServer(s, c)
	registrationv1.RegisterRegistrationServer(s, c)
	r.t.Cleanup(s.Stop)
	for _, path := range []string{c.socket, filepath.Join(registry, "dra-reg.sock")} {
		l, err := net.Listen("unix", path)
		if err != nil {
			r.t.Fatal(err)
		}
		go func() { _ = s.Serve(l) }() // until it is stopped
	}
	if status := next(r.t, c.registered); !status.PluginRegistered {
		r.t.Fatal(status.Error)
	}
	return c
}

// A claim that was allocated is prepared before its pod starts, reaches the
// container, and is given back after the pod's end.
func TestClaims(t *testing.T) {
	r := startReal(t)
	c := r.startClaimer()
	claims := client.For[*resourcev1.ResourceClaim](r.client)
	claim, err := claims.Create(t.Context(), &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "claim"}, Spec: resourcev1.ResourceClaimSpec{
		Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "c"}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	name := claim.Name
	pod := r.create(script("user", `echo has $CLAIMED; while sleep 1; do :; done`, func(p *corev1.Pod) {
		p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "entry", ResourceClaimName: &name}}
		p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "entry", Request: "r"}}
	}))
	r.within(60*time.Second, "the pod waits for its claim", func() bool {
		events, err := client.For[*corev1.Event](r.client).List(t.Context(), "default", metav1.ListOptions{})
		for _, e := range events {
			if err == nil && e.Reason == "FailedPrepareDynamicResources" && strings.Contains(e.Message, "pod user ("+string(pod.UID)+") is not allowed to use ResourceClaim claim") {
				return true
			}
		}
		return false
	})
	given := claim.DeepCopy()
	given.Status = resourcev1.ResourceClaimStatus{
		ReservedFor: []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: pod.Name, UID: pod.UID}},
		Allocation: &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
			Results: []resourcev1.DeviceRequestAllocationResult{{Request: "r", Driver: "dra.example.com", Pool: "n1", Device: "d1"}}}}}
	if _, err := claims.MergePatch(t.Context(), "default", "claim", map[string]any{"status": given.Status}, "status"); err != nil {
		t.Fatal(err)
	}
	r.within(60*time.Second, "the pod runs", func() bool { return r.get("user").Status.Phase == corev1.PodRunning })
	if got := next(t, c.calls); got != "prepare claim" {
		t.Errorf("the driver was asked to %s", got)
	}
	r.within(60*time.Second, "the container has the device", func() bool {
		return strings.Contains(r.ask("/containerLogs/default/user/main"), "has d1\n")
	})
	pods := r.listed()
	if len(pods) != 1 || len(pods[0].Containers[0].DynamicResources) != 1 || pods[0].Containers[0].DynamicResources[0].ClaimResources[0].DeviceName != "d1" {
		t.Errorf("the pod resources are %v", pods)
	}
	one := int64(1)
	if err := r.pods.Delete(t.Context(), "default", "user", metav1.DeleteOptions{GracePeriodSeconds: &one}); err != nil {
		t.Fatal(err)
	}
	if got := next(t, c.calls); got != "unprepare claim" {
		t.Errorf("the driver was asked to %s", got)
	}
	r.within(60*time.Second, "the pod is gone", func() bool { return r.get("user") == nil })
}
