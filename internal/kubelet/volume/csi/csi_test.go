// SPDX-License-Identifier: Apache-2.0

package csi_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	csispec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	registrationv1 "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"kaji/internal/client"
	"kaji/internal/kubelet/plugin"
	"kaji/internal/kubelet/volume"
	"kaji/internal/kubelet/volume/csi"
	"kaji/kajitest"
)

const name = "sample.csi"

// sample is a driver whose volumes are directories, staged and published by bind
// mounts.
type sample struct {
	csispec.UnimplementedNodeServer
	registrationv1.UnimplementedRegistrationServer
	socket, store string
	registered    chan *registrationv1.RegistrationStatus

	mu      sync.Mutex
	calls   []string // guarded by mu
	most    int64    // volumes a node
	can     []csispec.NodeServiceCapability_RPC_Type
	publish *csispec.NodePublishVolumeRequest
	stage   *csispec.NodeStageVolumeRequest
	expand  *csispec.NodeExpandVolumeRequest
}

func (s *sample) note(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

func (s *sample) noted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.calls
	s.calls = nil
	return out
}

func (s *sample) GetInfo(context.Context, *registrationv1.InfoRequest) (*registrationv1.PluginInfo, error) {
	return &registrationv1.PluginInfo{Type: registrationv1.CSIPlugin, Name: name, Endpoint: s.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

func (s *sample) NotifyRegistrationStatus(_ context.Context, status *registrationv1.RegistrationStatus) (*registrationv1.RegistrationStatusResponse, error) {
	s.registered <- status
	return &registrationv1.RegistrationStatusResponse{}, nil
}

func (s *sample) NodeGetInfo(context.Context, *csispec.NodeGetInfoRequest) (*csispec.NodeGetInfoResponse, error) {
	return &csispec.NodeGetInfoResponse{NodeId: "id-1", MaxVolumesPerNode: 7 + s.most, AccessibleTopology: &csispec.Topology{Segments: map[string]string{"sample/zone": "a"}}}, nil
}

func (s *sample) NodeGetCapabilities(context.Context, *csispec.NodeGetCapabilitiesRequest) (*csispec.NodeGetCapabilitiesResponse, error) {
	answer := &csispec.NodeGetCapabilitiesResponse{}
	for _, can := range append([]csispec.NodeServiceCapability_RPC_Type{csispec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, csispec.NodeServiceCapability_RPC_EXPAND_VOLUME}, s.can...) {
		answer.Capabilities = append(answer.Capabilities, &csispec.NodeServiceCapability{Type: &csispec.NodeServiceCapability_Rpc{Rpc: &csispec.NodeServiceCapability_RPC{Type: can}}})
	}
	return answer, nil
}

func (s *sample) NodeExpandVolume(_ context.Context, r *csispec.NodeExpandVolumeRequest) (*csispec.NodeExpandVolumeResponse, error) {
	s.note("expand")
	s.expand = r
	return &csispec.NodeExpandVolumeResponse{CapacityBytes: r.CapacityRange.RequiredBytes}, nil
}

func bind(from, to string) error {
	return errors.Join(os.MkdirAll(from, 0o700), os.MkdirAll(to, 0o700), unix.Mount(from, to, "", unix.MS_BIND, ""))
}

func unbind(at string) error {
	if err := unix.Unmount(at, 0); err != nil {
		return err
	}
	return os.Remove(at)
}

func (s *sample) NodeStageVolume(_ context.Context, r *csispec.NodeStageVolumeRequest) (*csispec.NodeStageVolumeResponse, error) {
	s.note("stage")
	s.stage = r
	if entries, _ := os.ReadDir(r.StagingTargetPath); len(entries) > 0 { // staged before
		return &csispec.NodeStageVolumeResponse{}, nil
	}
	from := filepath.Join(s.store, r.VolumeId)
	err := errors.Join(bind(from, r.StagingTargetPath), os.WriteFile(filepath.Join(from, "file"), []byte("x"), 0o600))
	return &csispec.NodeStageVolumeResponse{}, err
}

func (s *sample) NodeUnstageVolume(_ context.Context, r *csispec.NodeUnstageVolumeRequest) (*csispec.NodeUnstageVolumeResponse, error) {
	s.note("unstage")
	return &csispec.NodeUnstageVolumeResponse{}, unix.Unmount(r.StagingTargetPath, 0)
}

func (s *sample) NodePublishVolume(_ context.Context, r *csispec.NodePublishVolumeRequest) (*csispec.NodePublishVolumeResponse, error) {
	s.note("publish")
	s.publish = r
	if entries, _ := os.ReadDir(r.TargetPath); len(entries) > 0 { // published before
		return &csispec.NodePublishVolumeResponse{}, nil
	}
	from := r.StagingTargetPath
	if from == "" {
		from = filepath.Join(s.store, r.VolumeId)
	}
	return &csispec.NodePublishVolumeResponse{}, bind(from, r.TargetPath)
}

func (s *sample) NodeUnpublishVolume(_ context.Context, r *csispec.NodeUnpublishVolumeRequest) (*csispec.NodeUnpublishVolumeResponse, error) {
	s.note("unpublish")
	return &csispec.NodeUnpublishVolumeResponse{}, unbind(r.TargetPath)
}

// node is a node with a driver that has registered.
type node struct {
	*testing.T
	client client.Interface
	root   string
	sample *sample
	driver *csi.Driver
	inUse  []corev1.UniqueVolumeName
}

func start(t *testing.T, can ...csispec.NodeServiceCapability_RPC_Type) *node {
	n := &node{T: t, client: kajitest.Start(t).Client(), root: t.TempDir()}
	if _, err := client.For[*corev1.Node](n.client).Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"own": "1"}}}); err != nil {
		t.Fatal(err)
	}
	n.sample = &sample{socket: filepath.Join(n.root, "csi.sock"), store: filepath.Join(n.root, "store"), registered: make(chan *registrationv1.RegistrationStatus, 8), can: can}
	registry := &csi.Registry{Client: n.client, NodeName: "n1"}
	n.driver = &csi.Driver{Registry: registry, Mounter: volume.Kernel{}, Client: n.client, NodeName: "n1", PluginsDir: n.root + "/plugins", PodsDir: n.root + "/pods",
		InUse: func(all []corev1.UniqueVolumeName) { n.inUse = all }}
	n.run(func(ctx context.Context) error {
		w := &plugin.Watcher{Dir: n.root + "/plugins_registry", Handlers: map[string]plugin.Handler{registrationv1.CSIPlugin: registry}, Logger: slog.New(slog.DiscardHandler)}
		return w.Run(ctx)
	})
	if err := os.MkdirAll(n.root+"/plugins_registry", 0o700); err != nil {
		t.Fatal(err)
	}
	n.serve(n.sample.socket)
	n.serve(n.root + "/plugins_registry/sample-reg.sock")
	select {
	case status := <-n.sample.registered:
		if !status.PluginRegistered {
			t.Fatal(status.Error)
		}
	case <-time.After(time.Minute):
		t.Fatal("the driver was not registered")
	}
	return n
}

func (n *node) run(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			n.Error(err)
		}
	})
	n.Cleanup(func() { cancel(); group.Wait() })
}

func (n *node) serve(path string) {
	l, err := net.Listen("unix", path)
	if err != nil {
		n.Fatal(err)
	}
	s := grpc.NewServer()
	csispec.RegisterNodeServer(s, n.sample)
	registrationv1.RegisterRegistrationServer(s, n.sample)
	n.run(func(ctx context.Context) error {
		defer context.AfterFunc(ctx, s.Stop)()
		return s.Serve(l)
	})
}

func (n *node) request(pod string, source volume.Source) volume.Request {
	return volume.Request{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: pod, UID: types.UID(pod)}}, Source: source,
		Dir: filepath.Join(n.root, "pods", pod, "volumes", "kubernetes.io~csi", "v1")}
}

func persistent() volume.Source {
	return volume.Source{Name: "v", Volume: &corev1.Volume{Name: "v"}, Persistent: &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v1"},
		Spec: corev1.PersistentVolumeSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: name, VolumeHandle: "h1", FSType: "ext4",
				VolumeAttributes: map[string]string{"k": "v"}, NodePublishSecretRef: &corev1.SecretReference{Namespace: "default", Name: "s"}}}}}}
}

func (n *node) calls(want ...string) {
	n.Helper()
	if got := n.sample.noted(); !slices.Equal(got, want) {
		n.Errorf("the driver was asked to %v, want %v", got, want)
	}
}

// The cluster learns what the driver says of the node, and what was there stays.
func TestRegistration(t *testing.T) {
	n := start(t)
	c, err := client.For[*storagev1.CSINode](n.client).Get(t.Context(), "", "n1")
	if err != nil || len(c.Spec.Drivers) != 1 {
		t.Fatalf("%v, %v", c, err)
	}
	if d := c.Spec.Drivers[0]; d.Name != name || d.NodeID != "id-1" || *d.Allocatable.Count != 7 || !slices.Equal(d.TopologyKeys, []string{"sample/zone"}) {
		t.Errorf("the CSINode has %+v", d)
	}
	one, err := client.For[*corev1.Node](n.client).Get(t.Context(), "", "n1")
	if err != nil || one.Labels["sample/zone"] != "a" || one.Labels["own"] != "1" || one.Annotations["csi.volume.kubernetes.io/nodeid"] != `{"sample.csi":"id-1"}` {
		t.Errorf("the Node has %v %v, %v", one.Labels, one.Annotations, err)
	}
	if err := os.Remove(n.root + "/plugins_registry/sample-reg.sock"); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		if c, err = client.For[*storagev1.CSINode](n.client).Get(t.Context(), "", "n1"); err == nil && len(c.Spec.Drivers) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a driver that is gone is still there: %v, %v", c, err)
		}
	}
}

// A persistent volume waits for its attachment, is staged once for the node and
// published for each pod, and goes the same way back.
func TestPersistent(t *testing.T) {
	n := start(t)
	if _, err := client.For[*corev1.Secret](n.client).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, Data: map[string][]byte{"p": []byte("w")}}); err != nil {
		t.Fatal(err)
	}
	attachments := client.For[*storagev1.VolumeAttachment](n.client)
	pv := "v1"
	a, err := attachments.Create(t.Context(), &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "csi-" + digest("h1"+name+"n1")},
		Spec: storagev1.VolumeAttachmentSpec{Attacher: name, NodeName: "n1", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &pv}}})
	if err != nil {
		t.Fatal(err)
	}
	n.run(func(ctx context.Context) error { // attached while the pod waits
		a.Status = storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"device": "x"}}
		_, err := attachments.UpdateStatus(ctx, a)
		return err
	})
	group := int64(4000)
	first := n.request("p1", persistent())
	first.FSGroup = &group
	m, err := n.driver.Setup(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	n.calls("stage", "publish")
	if data, err := os.ReadFile(filepath.Join(m.Path, "file")); err != nil || string(data) != "x" {
		t.Errorf("the volume holds %q, %v", data, err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(filepath.Join(m.Path, "file"), &stat); err != nil || stat.Gid != 4000 {
		t.Errorf("its file belongs to group %d, %v", stat.Gid, err)
	}
	p := n.sample.publish
	if p.VolumeContext["k"] != "v" || p.PublishContext["device"] != "x" || p.Secrets["p"] != "w" || p.VolumeCapability.GetMount().GetFsType() != "ext4" {
		t.Errorf("it was published by %v", p)
	}
	if !slices.Equal(n.inUse, []corev1.UniqueVolumeName{"kubernetes.io/csi/sample.csi^h1"}) {
		t.Errorf("in use are %v", n.inUse)
	}
	if _, err := n.driver.Setup(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	n.calls() // it was ready
	second := n.request("p2", persistent())
	if _, err := n.driver.Setup(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	n.calls("stage", "publish")
	for _, r := range []volume.Request{first, second} {
		if err := n.driver.Teardown(t.Context(), r.Dir, "", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(r.Dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", r.Dir, err)
		}
	}
	n.calls("unpublish", "unpublish", "unstage")
	if len(n.inUse) > 0 {
		t.Errorf("in use are %v", n.inUse)
	}
}

// Drivers that want it are asked for a volume again and again; others are not.
func TestRepublish(t *testing.T) {
	n := start(t)
	yes, no := true, false
	driver := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSIDriverSpec{AttachRequired: &no, RequiresRepublish: &yes}}
	if _, err := client.For[*storagev1.CSIDriver](n.client).Create(t.Context(), driver); err != nil {
		t.Fatal(err)
	}
	source := persistent()
	source.Persistent.Spec.CSI.NodePublishSecretRef = nil
	r := n.request("p1", source)
	n.driver.Republish = time.Hour
	m, err := n.driver.Setup(t.Context(), r)
	if err != nil || time.Until(m.Again) < 50*time.Minute {
		t.Fatalf("again at %v, %v", m.Again, err)
	}
	if m, err = n.driver.Setup(t.Context(), r); err != nil || time.Until(m.Again) < 50*time.Minute {
		t.Errorf("again at %v, %v", m.Again, err)
	}
	n.calls("stage", "publish")
	other := n.request("p2", source)
	n.driver.Republish = time.Nanosecond
	for range 3 {
		if _, err := n.driver.Setup(t.Context(), other); err != nil {
			t.Fatal(err)
		}
	}
	n.calls("stage", "publish", "publish", "publish")
	for _, r := range []volume.Request{r, other} {
		if err := n.driver.Teardown(t.Context(), r.Dir, "", ""); err != nil {
			t.Fatal(err)
		}
	}
}

// The limit of volumes follows what the driver says; drivers that tell one writer
// from all of a node are told.
func TestLimitsAndWriters(t *testing.T) {
	n := start(t, csispec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER)
	n.sample.most = 5
	if err := n.driver.Registry.Refresh(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	c, err := client.For[*storagev1.CSINode](n.client).Get(t.Context(), "", "n1")
	if err != nil || *c.Spec.Drivers[0].Allocatable.Count != 12 {
		t.Errorf("%+v, %v", c, err)
	}
	no := false
	if _, err := client.For[*storagev1.CSIDriver](n.client).Create(t.Context(), &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSIDriverSpec{AttachRequired: &no}}); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[corev1.PersistentVolumeAccessMode]csispec.VolumeCapability_AccessMode_Mode{corev1.ReadWriteOnce: csispec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
		corev1.ReadWriteOncePod: csispec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER, corev1.ReadWriteMany: csispec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER} {
		source := persistent()
		source.Persistent.Spec.CSI.NodePublishSecretRef, source.Persistent.Spec.AccessModes = nil, []corev1.PersistentVolumeAccessMode{mode}
		r := n.request(strings.ToLower(string(mode)), source)
		if _, err := n.driver.Setup(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if got := n.sample.publish.VolumeCapability.AccessMode.Mode; got != want {
			t.Errorf("%s: %v, want %v", mode, got, want)
		}
		if err := n.driver.Teardown(t.Context(), r.Dir, "", ""); err != nil {
			t.Fatal(err)
		}
	}
}

// With SELinux a driver that can mounts with the label of the pod's files, which is
// kept; containers may not want different ones.
func TestLabel(t *testing.T) {
	n := start(t)
	yes, no := true, false
	if _, err := client.For[*storagev1.CSIDriver](n.client).Create(t.Context(), &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSIDriverSpec{AttachRequired: &no, SELinuxMount: &yes}}); err != nil {
		t.Fatal(err)
	}
	source := persistent()
	source.Persistent.Spec.CSI.NodePublishSecretRef = nil
	use := []corev1.VolumeMount{{Name: source.Name}}
	level := func(l string) *corev1.SecurityContext {
		return &corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: l}}
	}
	recursive := corev1.SELinuxChangePolicyRecursive
	for pod, row := range map[string]struct {
		spec  corev1.PodSpec
		flags string
		err   string
	}{
		"none":      {corev1.PodSpec{Containers: []corev1.Container{{Name: "a", VolumeMounts: use}}}, "[]", ""},
		"pod":       {corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: "s0:c1,c2"}}, Containers: []corev1.Container{{Name: "a", VolumeMounts: use}}}, `[context="x:s0:c1,c2"]`, ""},
		"recursive": {corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{SELinuxChangePolicy: &recursive, SELinuxOptions: &corev1.SELinuxOptions{Level: "s0"}}, Containers: []corev1.Container{{Name: "a", VolumeMounts: use}}}, "[]", ""},
		"unused":    {corev1.PodSpec{Containers: []corev1.Container{{Name: "a", VolumeMounts: use, SecurityContext: level("s1")}, {Name: "b", SecurityContext: level("s2")}}}, `[context="x:s1"]`, ""},
		"different": {corev1.PodSpec{Containers: []corev1.Container{{Name: "a", VolumeMounts: use, SecurityContext: level("s1")}, {Name: "b", VolumeMounts: use, SecurityContext: level("s2")}}}, "", "multiple SELinux labels found: x:s1, x:s2"},
	} {
		r := n.request(pod, source)
		r.Pod.Spec = row.spec
		r.Label = func(o *corev1.SELinuxOptions) (string, error) {
			if o.Level == "" {
				return "", nil
			}
			return "x:" + o.Level, nil
		}
		m, err := n.driver.Setup(t.Context(), r)
		if row.err != "" {
			if err == nil || err.Error() != row.err {
				t.Errorf("%s: %v, want %s", pod, err, row.err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		again, err := n.driver.Setup(t.Context(), r)
		labeled := row.flags != "[]"
		if got := fmt.Sprint(n.sample.publish.VolumeCapability.GetMount().MountFlags); got != row.flags || m.Labeled != labeled || again.Labeled != labeled || err != nil {
			t.Errorf("%s: %s, labeled %v, then %v, %v, want %s", pod, got, m.Labeled, again.Labeled, err, row.flags)
		}
		if err := n.driver.Teardown(t.Context(), r.Dir, "", ""); err != nil {
			t.Fatal(err)
		}
	}
}

// An ephemeral volume of the pod's own needs a driver that says it does them,
// and learns whose it is.
func TestInline(t *testing.T) {
	n := start(t)
	source := volume.Source{Name: "v", Volume: &corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: name, VolumeAttributes: map[string]string{"a": "b"}}}}}
	r := n.request("p1", source)
	if _, err := n.driver.Setup(t.Context(), r); err == nil || !strings.Contains(err.Error(), `volume mode "Ephemeral" not supported by driver sample.csi (only supports ["Persistent"])`) {
		t.Errorf("got %v", err)
	}
	yes, no := true, false
	_, err := client.For[*storagev1.CSIDriver](n.client).Create(t.Context(), &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: storagev1.CSIDriverSpec{PodInfoOnMount: &yes, AttachRequired: &no, VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.driver.Setup(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	n.calls("publish")
	got := n.sample.publish
	if got.VolumeContext["csi.storage.k8s.io/pod.name"] != "p1" || got.VolumeContext["csi.storage.k8s.io/ephemeral"] != "true" || got.VolumeContext["a"] != "b" || got.VolumeId != "csi-"+digest("p1v") {
		t.Errorf("it was published by %v", got)
	}
	if err := n.driver.Teardown(t.Context(), r.Dir, "", ""); err != nil {
		t.Fatal(err)
	}
	n.calls("unpublish")
}

// A volume that has grown is used as a whole: when it is mounted, and when it grows
// while it is. The claim tells so.
func TestExpansion(t *testing.T) {
	n := start(t)
	no := false
	if _, err := client.For[*storagev1.CSIDriver](n.client).Create(t.Context(), &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSIDriverSpec{AttachRequired: &no}}); err != nil {
		t.Fatal(err)
	}
	yes, class := true, "growing"
	if _, err := client.For[*storagev1.StorageClass](n.client).Create(t.Context(), &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Provisioner: name, AllowVolumeExpansion: &yes}); err != nil {
		t.Fatal(err)
	}
	claims, volumes := client.For[*corev1.PersistentVolumeClaim](n.client), client.For[*corev1.PersistentVolume](n.client)
	size := func(s string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(s)}
	}
	pvc, err := claims.Create(t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, VolumeName: "v1", StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{Requests: size("2Gi")}}})
	if err != nil {
		t.Fatal(err)
	}
	pvc, err = claims.MergePatch(t.Context(), "default", "c", map[string]any{"status": map[string]any{"phase": "Bound", "capacity": map[string]any{"storage": "1Gi"},
		"conditions": []any{map[string]any{"type": "FileSystemResizePending", "status": "True"}}}}, "status")
	if err != nil {
		t.Fatal(err)
	}
	pv := persistent().Persistent
	pv.Spec.Capacity, pv.Spec.CSI.NodePublishSecretRef = size("2Gi"), nil
	pv.Spec.StorageClassName = class
	pv.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: "default", Name: "c", UID: pvc.UID}
	if _, err := volumes.Create(t.Context(), pv); err != nil {
		t.Fatal(err)
	}
	var told []error
	m := volume.NewManager(volume.ManagerConfig{PodsDir: n.root + "/pods", Drivers: []volume.Driver{n.driver}, Client: n.client, Logger: slog.New(slog.DiscardHandler),
		Resized: func(_ *corev1.Pod, _ *corev1.PersistentVolumeClaim, _ string, err error) { told = append(told, err) }})
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p1", UID: "p1"}, Spec: corev1.PodSpec{
		Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}},
		Containers: []corev1.Container{{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}}}}}
	if err := m.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Teardown(context.Background(), "p1"); err != nil {
			t.Error(err)
		}
	})
	n.calls("stage", "publish", "expand")
	if r := n.sample.expand; r.CapacityRange.RequiredBytes != 2<<30 || r.VolumePath != n.root+"/pods/p1/volumes/kubernetes.io~csi/v1/mount" || r.StagingTargetPath == "" || r.VolumeId != "h1" {
		t.Errorf("it was expanded by %v", r)
	}
	grown := func(want string) {
		t.Helper()
		pvc, err := claims.Get(t.Context(), "default", "c")
		if have := pvc.Status.Capacity[corev1.ResourceStorage]; err != nil || have.String() != want || len(pvc.Status.Conditions) > 0 {
			t.Errorf("the claim has %+v, %v, want %s", pvc.Status, err, want)
		}
	}
	grown("2Gi")
	if err := m.Resize(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	n.calls()
	storage := func(s string) map[string]any { return map[string]any{"storage": s} }
	_, err = claims.MergePatch(t.Context(), "default", "c", map[string]any{"spec": map[string]any{"resources": map[string]any{"requests": storage("3Gi")}}}, "")
	if err == nil {
		_, err = volumes.MergePatch(t.Context(), "", "v1", map[string]any{"spec": map[string]any{"capacity": storage("3Gi")}}, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Resize(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	n.calls("expand")
	grown("3Gi")
	if len(told) != 2 || told[0] != nil || told[1] != nil {
		t.Errorf("told of %v", told)
	}
}

func TestUnknownDriver(t *testing.T) {
	n := start(t)
	source := persistent()
	source.Persistent.Spec.CSI.Driver = "other.csi"
	_, err := n.driver.Setup(t.Context(), n.request("p1", source))
	if want := "driver name other.csi not found in the list of registered CSI drivers"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func digest(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }
