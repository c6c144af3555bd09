// SPDX-License-Identifier: Apache-2.0

package kubelet_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/utils/cpuset"

	"kaji/internal/client"
	"kaji/internal/kubelet"
	"kaji/internal/kubelet/cpumanager"
	"kaji/internal/kubelet/plugin"
)

const sampleResource = "example.com/sample"

// sample is a device plug-in: its devices are /dev/null by other names.
type sample struct {
	pluginapi.UnimplementedDevicePluginServer
	dir     string
	changed chan []*pluginapi.Device

	mu      sync.Mutex
	started []string // devices whose containers were about to start
}

// startSample serves the plug-in's socket and registers it with the agent, as
// soon as that is there.
func (r *real) startSample(devices ...*pluginapi.Device) *sample {
	t, dir := r.t, filepath.Join(r.root, "device-plugins")
	t.Helper()
	r.within(60*time.Second, "the agent takes plug-ins", func() bool {
		_, err := os.Stat(filepath.Join(dir, "kubelet.sock"))
		return err == nil
	})
	s := &sample{dir: dir, changed: make(chan []*pluginapi.Device, 8)}
	s.changed <- devices
	l, err := net.Listen("unix", filepath.Join(dir, "sample.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(server, s)
	go func() { _ = server.Serve(l) }() // until it is stopped
	t.Cleanup(server.Stop)
	conn, err := plugin.Dial(filepath.Join(dir, "kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = pluginapi.NewRegistrationClient(conn).Register(t.Context(), &pluginapi.RegisterRequest{Version: pluginapi.Version, Endpoint: "sample.sock",
		ResourceName: sampleResource, Options: &pluginapi.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: true}}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *sample) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: true}, nil
}

func (s *sample) ListAndWatch(_ *pluginapi.Empty, stream grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	for {
		select {
		case devices := <-s.changed:
			if err := stream.Send(&pluginapi.ListAndWatchResponse{Devices: devices}); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

// GetPreferredAllocation prefers the last devices.
func (s *sample) GetPreferredAllocation(_ context.Context, q *pluginapi.PreferredAllocationRequest) (*pluginapi.PreferredAllocationResponse, error) {
	r := q.ContainerRequests[0]
	slices.Sort(r.AvailableDeviceIDs)
	ids := r.AvailableDeviceIDs[len(r.AvailableDeviceIDs)-int(r.AllocationSize):]
	return &pluginapi.PreferredAllocationResponse{ContainerResponses: []*pluginapi.ContainerPreferredAllocationResponse{{DeviceIDs: ids}}}, nil
}

func (s *sample) Allocate(_ context.Context, q *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	r := &pluginapi.ContainerAllocateResponse{Envs: map[string]string{"SAMPLE": strings.Join(q.ContainerRequests[0].DevicesIds, ",")},
		Mounts: []*pluginapi.Mount{{HostPath: s.dir, ContainerPath: "/sample", ReadOnly: true}}}
	for _, id := range q.ContainerRequests[0].DevicesIds {
		r.Devices = append(r.Devices, &pluginapi.DeviceSpec{HostPath: "/dev/null", ContainerPath: "/dev/" + id, Permissions: "rw"})
	}
	return &pluginapi.AllocateResponse{ContainerResponses: []*pluginapi.ContainerAllocateResponse{r}}, nil
}

func (s *sample) PreStartContainer(_ context.Context, q *pluginapi.PreStartContainerRequest) (*pluginapi.PreStartContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = append(s.started, q.DevicesIds...)
	return &pluginapi.PreStartContainerResponse{}, nil
}

func (s *sample) prepared() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.started)
}

func device(id, health string) *pluginapi.Device { return &pluginapi.Device{ID: id, Health: health} }

// amount waits until the node shows so many samples, and so many of use.
func (r *real) amount(all, usable int64) {
	r.t.Helper()
	r.within(60*time.Second, "the node's devices", func() bool {
		n, err := client.For[*corev1.Node](r.client).Get(r.t.Context(), "", "n1")
		if err != nil {
			return false
		}
		c, ok := n.Status.Capacity[sampleResource]
		a := n.Status.Allocatable[sampleResource]
		return ok && c.Value() == all && a.Value() == usable
	})
}

func wants(count string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{sampleResource: resource.MustParse(count)}
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
	}
}

// A device plug-in's devices reach the node's status and the containers that ask
// for them, and come back when those are over; their health is shown.
func TestDevicePlugin(t *testing.T) {
	r := startReal(t)
	s := r.startSample(device("a", pluginapi.Healthy), device("b", pluginapi.Healthy))
	r.amount(2, 2)
	r.create(script("user", `echo got $SAMPLE; test -c /dev/$SAMPLE && echo there; ls /sample; while sleep 1; do :; done`, wants("1")))
	r.waitPhase("user", corev1.PodRunning)
	r.within(60*time.Second, "the container sees its device", func() bool {
		log := r.ask("/containerLogs/default/user/main")
		return strings.Contains(log, "got b\nthere\n") && strings.Contains(log, "sample.sock")
	})
	if got := s.prepared(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("PreStartContainer was called for %v, want b", got)
	}
	r.resources()
	r.create(script("greedy", `true`, wants("2")))
	pod := r.waitPhase("greedy", corev1.PodFailed)
	if want := "Pod was rejected: Allocate failed due to requested number of devices unavailable for example.com/sample. Requested: 2, Available: 1, which is unexpected"; pod.Status.Reason != "UnexpectedAdmissionError" || pod.Status.Message != want {
		t.Errorf("got %s: %s", pod.Status.Reason, pod.Status.Message)
	}
	s.changed <- []*pluginapi.Device{device("a", pluginapi.Healthy), device("b", pluginapi.Unhealthy)}
	r.amount(2, 1)
	r.within(60*time.Second, "the status tells of the sick device", func() bool {
		c := r.get("user").Status.ContainerStatuses
		return len(c) == 1 && len(c[0].AllocatedResourcesStatus) == 1 && c[0].AllocatedResourcesStatus[0].Name == sampleResource &&
			c[0].AllocatedResourcesStatus[0].Resources[0] == corev1.ResourceHealth{ResourceID: "b", Health: corev1.ResourceHealthStatusUnhealthy}
	})
	s.changed <- []*pluginapi.Device{device("a", pluginapi.Healthy), device("b", pluginapi.Healthy)}
	one := int64(1)
	if err := r.pods.Delete(t.Context(), "default", "user", metav1.DeleteOptions{GracePeriodSeconds: &one}); err != nil {
		t.Fatal(err)
	}
	r.within(60*time.Second, "the pod is gone", func() bool { return r.get("user") == nil })
	r.amount(2, 2)
	if left := r.listed(); len(left) > 0 {
		t.Errorf("List after the end: %v", left)
	}
	r.create(script("both", `echo got $SAMPLE; test -c /dev/a && test -c /dev/b`, wants("2")))
	r.waitPhase("both", corev1.PodSucceeded)
}

// asked is a client of the pod resources API.
func (r *real) asked() podresourcesv1.PodResourcesListerClient {
	conn, err := plugin.Dial(filepath.Join(r.root, "pod-resources", "kubelet.sock"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return podresourcesv1.NewPodResourcesListerClient(conn)
}

func (r *real) listed() []*podresourcesv1.PodResources {
	r.t.Helper()
	answer, err := r.asked().List(r.t.Context(), &podresourcesv1.ListPodResourcesRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.PodResources
}

// resources looks at what the pod resources API says while pod user has b.
func (r *real) resources() {
	r.t.Helper()
	pods := r.listed()
	if len(pods) != 1 || pods[0].Name != "user" || len(pods[0].Containers) != 1 || len(pods[0].Containers[0].Devices) != 1 ||
		pods[0].Containers[0].Devices[0].ResourceName != sampleResource || !slices.Equal(pods[0].Containers[0].Devices[0].DeviceIds, []string{"b"}) {
		r.t.Errorf("List: %v", pods)
	}
	one, err := r.asked().Get(r.t.Context(), &podresourcesv1.GetPodResourcesRequest{PodName: "user", PodNamespace: "default"})
	if err != nil || len(one.PodResources.Containers[0].Devices) != 1 {
		r.t.Errorf("Get: %v, %v", one, err)
	}
	all, err := r.asked().GetAllocatableResources(r.t.Context(), &podresourcesv1.AllocatableResourcesRequest{})
	if err != nil || len(all.Devices) != 2 {
		r.t.Errorf("GetAllocatableResources: %v, %v", all, err)
	}
}

// Guaranteed containers of whole processors have them for themselves; those that
// run already give way, and come back.
func TestExclusiveCPUs(t *testing.T) {
	r := startReal(t, func(c *kubelet.Config) {
		c.CPUManagerPolicy, c.Reserved = cpumanager.Static, corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
	})
	show := `while sleep 0.2; do grep Cpus_allowed_list /proc/self/status; done`
	r.create(script("shared", show))
	r.waitPhase("shared", corev1.PodRunning)
	last := func(pod string) cpuset.CPUSet {
		lines := strings.Split(strings.TrimSpace(r.ask("/containerLogs/default/"+pod+"/main?tailLines=1")), "\t")
		set, err := cpuset.Parse(strings.TrimSpace(lines[len(lines)-1]))
		if err != nil {
			return cpuset.New()
		}
		return set
	}
	var all cpuset.CPUSet
	r.within(60*time.Second, "the pod sees where it runs", func() bool { all = last("shared"); return !all.IsEmpty() })
	r.create(script("own", show, func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	}))
	r.waitPhase("own", corev1.PodRunning)
	r.within(60*time.Second, "a processor is one pod's", func() bool {
		own, shared := last("own"), last("shared")
		return own.Size() == 1 && own.IsSubsetOf(all) && shared.Equals(all.Difference(own))
	})
	pods := r.listed()
	if len(pods) != 2 || len(pods[0].Containers[0].CpuIds)+len(pods[1].Containers[0].CpuIds) != 1 {
		t.Errorf("the pod resources are %v", pods)
	}
	one := int64(1)
	if err := r.pods.Delete(t.Context(), "default", "own", metav1.DeleteOptions{GracePeriodSeconds: &one}); err != nil {
		t.Fatal(err)
	}
	r.within(60*time.Second, "the processor is shared again", func() bool { return last("shared").Equals(all) })
}
