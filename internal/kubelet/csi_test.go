// SPDX-License-Identifier: Apache-2.0

package kubelet_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	csispec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	registrationv1 "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/kubelet"
	"kaji/internal/kubelet/memcri"
)

// storage is a CSI driver that has nothing but a limit.
type storage struct {
	csispec.UnimplementedNodeServer
	registrationv1.UnimplementedRegistrationServer
	socket string
	limit  atomic.Int64
	health atomic.Pointer[csispec.VolumeHealth]
	mounts *noMounts
}

const storageName = "csi.example.com"

func (s *storage) GetInfo(context.Context, *registrationv1.InfoRequest) (*registrationv1.PluginInfo, error) {
	return &registrationv1.PluginInfo{Type: registrationv1.CSIPlugin, Name: storageName, Endpoint: s.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

func (s *storage) NotifyRegistrationStatus(context.Context, *registrationv1.RegistrationStatus) (*registrationv1.RegistrationStatusResponse, error) {
	return &registrationv1.RegistrationStatusResponse{}, nil
}

func (s *storage) NodeGetInfo(context.Context, *csispec.NodeGetInfoRequest) (*csispec.NodeGetInfoResponse, error) {
	return &csispec.NodeGetInfoResponse{NodeId: "n1", MaxVolumesPerNode: s.limit.Load()}, nil
}

func (s *storage) NodeGetCapabilities(context.Context, *csispec.NodeGetCapabilitiesRequest) (*csispec.NodeGetCapabilitiesResponse, error) {
	return &csispec.NodeGetCapabilitiesResponse{Capabilities: []*csispec.NodeServiceCapability{{Type: &csispec.NodeServiceCapability_Rpc{
		Rpc: &csispec.NodeServiceCapability_RPC{Type: csispec.NodeServiceCapability_RPC_GET_VOLUME_HEALTH}}}}}, nil
}

func (s *storage) NodePublishVolume(_ context.Context, q *csispec.NodePublishVolumeRequest) (*csispec.NodePublishVolumeResponse, error) {
	return &csispec.NodePublishVolumeResponse{}, errors.Join(os.MkdirAll(q.TargetPath, 0o750), s.mounts.set(q.TargetPath, true))
}

func (s *storage) NodeUnpublishVolume(_ context.Context, q *csispec.NodeUnpublishVolumeRequest) (*csispec.NodeUnpublishVolumeResponse, error) {
	return &csispec.NodeUnpublishVolumeResponse{}, s.mounts.set(q.TargetPath, false)
}

func (s *storage) NodeGetVolumeHealth(_ context.Context, q *csispec.NodeGetVolumeHealthRequest) (*csispec.NodeGetVolumeHealthResponse, error) {
	if q.VolumeId != "h1" || q.VolumePublishPath == "" {
		return nil, fmt.Errorf("no volume %s at %s", q.VolumeId, q.VolumePublishPath)
	}
	return &csispec.NodeGetVolumeHealthResponse{VolumeHealth: s.health.Load()}, nil
}

// startStorage registers the driver at the agent.
func (a *agent) startStorage(limit int64) *storage {
	a.t.Helper()
	root := filepath.Join(filepath.Dir(a.static), "root")
	s := &storage{socket: filepath.Join(root, "csi.sock"), mounts: a.mounts}
	s.limit.Store(limit)
	server := grpc.NewServer()
	csispec.RegisterNodeServer(server, s)
	registrationv1.RegisterRegistrationServer(server, s)
	var serving sync.WaitGroup
	a.t.Cleanup(func() { server.Stop(); serving.Wait() })
	registry := filepath.Join(root, "plugins_registry")
	if err := os.MkdirAll(registry, 0o750); err != nil {
		a.t.Fatal(err)
	}
	for _, path := range []string{s.socket, filepath.Join(registry, "csi-reg.sock")} {
		l, err := net.Listen("unix", path)
		if err != nil {
			a.t.Fatal(err)
		}
		serving.Go(func() { _ = server.Serve(l) })
	}
	a.eventually("the driver is in the CSINode", func() bool { return a.volumeLimit() == limit })
	return s
}

// volumeLimit is the limit of the driver as the cluster knows it.
func (a *agent) volumeLimit() int64 {
	n, err := client.For[*storagev1.CSINode](a.client).Get(a.t.Context(), "", "n1")
	if err != nil || len(n.Spec.Drivers) != 1 || n.Spec.Drivers[0].Allocatable == nil {
		return -1
	}
	return int64(*n.Spec.Drivers[0].Allocatable.Count)
}

// A pod whose volume cannot be attached, for the node has as many as it can have, is
// rejected, and the cluster learns the limit that there is now.
func TestAttachLimit(t *testing.T) {
	a := start(t, memcri.Config{Images: []string{"app:1"}})
	driver := a.startStorage(9)
	period, pv := int64(10), "v1"
	if err := made(a, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: storageName}, Spec: storagev1.CSIDriverSpec{NodeAllocatableUpdatePeriodSeconds: &period}}); err != nil {
		t.Fatal(err)
	}
	a.claim(pv)
	attachments := client.For[*storagev1.VolumeAttachment](a.client)
	attachment, err := attachments.Create(t.Context(), &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("csi-%x", sha256.Sum256([]byte("h1"+storageName+"n1")))},
		Spec: storagev1.VolumeAttachmentSpec{Attacher: storageName, NodeName: "n1", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &pv}}})
	if err != nil {
		t.Fatal(err)
	}
	exhausted := int32(codes.ResourceExhausted)
	attachment.Status.AttachError = &storagev1.VolumeError{Message: "no slot is free", ErrorCode: &exhausted}
	if _, err := attachments.UpdateStatus(t.Context(), attachment); err != nil {
		t.Fatal(err)
	}
	driver.limit.Store(3)
	a.create(withClaim())
	pod := a.waitPhase("p", corev1.PodFailed)
	if pod.Status.Reason != "VolumeAttachmentLimitExceeded" || !strings.HasPrefix(pod.Status.Message, "Pod was rejected: Node has reached its volume attachment limit, rejecting pod. unmounted volumes=[data], unattached volumes=[data]") ||
		!strings.Contains(pod.Status.Message, "no slot is free") {
		t.Errorf("got %s: %s", pod.Status.Reason, pod.Status.Message)
	}
	if n := a.volumeLimit(); n != 3 {
		t.Errorf("the CSINode has a limit of %d, want 3", n)
	}
	a.counted(`csi_operations_seconds_count{driver_name="csi.example.com",grpc_status_code="OK",method_name="/csi.v1.Node/NodeGetInfo",migrated="false"} 2`)
}

func made[T client.Object](a *agent, o T) error {
	_, err := client.For[T](a.client).Create(a.t.Context(), o)
	return err
}

// claim makes a volume of the driver and the claim "c" that has it.
func (a *agent) claim(pv string) {
	a.t.Helper()
	err := made(a, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: pv}, Spec: corev1.PersistentVolumeSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Capacity: corev1.ResourceList{"storage": resource.MustParse("1Gi")}, PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: storageName, VolumeHandle: "h1"}}}})
	if err != nil {
		a.t.Fatal(err)
	}
	claims, volumes := client.For[*corev1.PersistentVolumeClaim](a.client), client.For[*corev1.PersistentVolume](a.client)
	claim, err := claims.Create(a.t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: pv,
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}}})
	if err != nil {
		a.t.Fatal(err)
	}
	claim.Status.Phase = corev1.ClaimBound
	if _, err := claims.UpdateStatus(a.t.Context(), claim); err != nil {
		a.t.Fatal(err)
	}
	if _, err := volumes.MergePatch(a.t.Context(), "", pv, map[string]any{"spec": map[string]any{"claimRef": map[string]any{"namespace": "default", "name": "c", "uid": claim.UID}}}, ""); err != nil {
		a.t.Fatal(err)
	}
}

// What a driver says is wrong with a volume stands in the pod's status, until it is well again.
func TestVolumeHealth(t *testing.T) {
	a := startWith(t, memcri.Config{Images: []string{"app:1"}}, func(c *apiserver.Config) { c.Kinds = catalog.WithVolumeHealth(catalog.Current()) },
		func(c *kubelet.Config) { c.VolumeHealth, c.VolumeCheck = true, 20*time.Millisecond })
	driver := a.startStorage(9)
	no := false
	if err := made(a, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: storageName}, Spec: storagev1.CSIDriverSpec{AttachRequired: &no}}); err != nil {
		t.Fatal(err)
	}
	a.claim("v1")
	a.create(withClaim())
	a.waitPhase("p", corev1.PodRunning)
	if h := a.get("p").Status.VolumeHealth; len(h) != 0 {
		t.Errorf("a volume that is well is %+v", h)
	}
	told := func(want ...corev1.VolumeHealthCondition) {
		t.Helper()
		a.eventually("the health is told", func() bool {
			h := a.get("p").Status.VolumeHealth
			return len(h) == 1 && h[0].Name == "data" && slices.Equal(h[0].HealthConditions, want) && !h[0].LastTransitionTime.IsZero()
		})
	}
	driver.health.Store(&csispec.VolumeHealth{HealthStatuses: []*csispec.VolumeHealth_VolumeHealthEntry{{Status: csispec.VolumeHealthErrorType_DEGRADED, Reason: "DiskSlow", Message: "slow"}}})
	told(corev1.VolumeHealthCondition{Status: corev1.VolumeHealthDegraded, Reason: "DiskSlow", Message: "slow"})
	driver.health.Store(&csispec.VolumeHealth{})
	told()
}

func withClaim() *corev1.Pod {
	return simple("p", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	})
}
