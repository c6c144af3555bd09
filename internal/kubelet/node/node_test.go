// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"

	"kaji/internal/client"
	"kaji/internal/kubelet/node"
	"kaji/kajitest"
)

// The events of a start are upstream's: conditions are told by the node's words for
// them, and what the machine lacks by notices.
func TestStartIsTold(t *testing.T) {
	api := kajitest.Start(t).Client()
	recorder := record.NewFakeRecorder(100)
	k := node.New(node.Config{Name: "n", Client: api, Node: func() *corev1.Node { return nil }, Recorder: recorder, Logger: slog.New(slog.DiscardHandler),
		Machine: node.Machine{OS: "linux", Arch: "amd64", MilliCPU: 1000, Memory: 1 << 30, Disk: 1000003},
		Notices: func() []node.Notice {
			return []node.Notice{{Type: corev1.EventTypeNormal, Reason: "NodeAllocatableEnforced", Message: "Updated Node Allocatable limit across pods"}}
		},
		Runtime: func(context.Context) node.Runtime { return node.Runtime{} }})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := k.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer func() { cancel(); running.Wait() }()
	for _, want := range []string{"Normal Starting Starting kubelet.", "Normal NodeAllocatableEnforced Updated Node Allocatable limit across pods",
		"Normal NodeHasSufficientMemory Node n status is now: NodeHasSufficientMemory", "Normal NodeHasNoDiskPressure Node n status is now: NodeHasNoDiskPressure",
		"Normal NodeHasSufficientPID Node n status is now: NodeHasSufficientPID"} {
		select {
		case got := <-recorder.Events:
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		case <-time.After(60 * time.Second):
			t.Fatalf("never told: %s", want)
		}
	}
	n, err := client.For[*corev1.Node](api).Get(t.Context(), "", "n")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ExtendWebSocketsToKubelet", "InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers", "RestartAllContainersOnContainerExits"}
	if disk := n.Status.Capacity[corev1.ResourceEphemeralStorage]; !slices.Equal(n.Status.DeclaredFeatures, want) || disk.String() != "1000003" ||
		n.Status.NodeInfo.RunningInUserNamespace == nil || *n.Status.NodeInfo.RunningInUserNamespace {
		t.Errorf("got features %q, disk %s, user namespace %v", n.Status.DeclaredFeatures, disk.String(), n.Status.NodeInfo.RunningInUserNamespace)
	}
}

// A node that has its pod ranges is never shown as not ready at a restart of its
// agent: the network learns them before the first status.
func TestRestartIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := kajitest.Start(t).Client()
		nodes := client.For[*corev1.Node](api)
		made, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/24", PodCIDRs: []string{"10.244.0.0/24"}}})
		if err != nil {
			t.Fatal(err)
		}
		w, err := api.Watch(t.Context(), nodes.Resource(""), metav1.ListOptions{ResourceVersion: made.ResourceVersion})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		var ranges atomic.Int32
		k := node.New(node.Config{Name: "n", Client: api, Node: func() *corev1.Node { return made }, Recorder: record.NewFakeRecorder(100), Logger: slog.New(slog.DiscardHandler),
			Machine:    node.Machine{OS: "linux", Arch: "amd64", MilliCPU: 1000, Memory: 1 << 30, Disk: 1 << 30},
			Registered: func(n *corev1.Node) { ranges.Store(int32(len(n.Spec.PodCIDRs))) },
			Runtime: func(context.Context) node.Runtime {
				if ranges.Load() == 0 {
					return node.Runtime{Problems: []string{"no pod CIDR assigned to the node yet"}}
				}
				return node.Runtime{}
			}})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := k.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		defer func() { cancel(); running.Wait() }()
		for e := range w.ResultChan() {
			for _, c := range e.Object.(*corev1.Node).Status.Conditions {
				if c.Type != corev1.NodeReady {
					continue
				}
				if c.Status != corev1.ConditionTrue {
					t.Errorf("the first status says %s: %s", c.Status, c.Message)
				}
				return
			}
		}
	})
}

// A machine that was started anew, and a node that takes no pods, are told.
func TestReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := kajitest.Start(t).Client()
		nodes := client.For[*corev1.Node](api)
		made, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{Unschedulable: true}, Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{BootID: "old"}}})
		if err != nil {
			t.Fatal(err)
		}
		recorder := record.NewFakeRecorder(100)
		k := node.New(node.Config{Name: "n", Client: api, Node: func() *corev1.Node { return made }, Recorder: recorder, Logger: slog.New(slog.DiscardHandler),
			Machine: node.Machine{OS: "linux", Arch: "amd64", MilliCPU: 1000, Memory: 1 << 30, Disk: 1 << 30, BootID: "new"},
			Runtime: func(context.Context) node.Runtime { return node.Runtime{} }})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := k.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		defer func() { cancel(); running.Wait() }()
		missing := []string{"Warning Rebooted Node n has been rebooted, boot id: new", "Normal NodeNotSchedulable Node n status is now: NodeNotSchedulable"}
		for limit := time.After(time.Minute); len(missing) > 0; {
			select {
			case got := <-recorder.Events:
				missing = slices.DeleteFunc(missing, func(want string) bool { return want == got })
			case <-limit:
				t.Fatalf("never told: %q", missing)
			}
		}
	})
}
