// SPDX-License-Identifier: Apache-2.0

package podsapi

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podsv1alpha1 "k8s.io/kubelet/pkg/apis/pods/v1alpha1"
)

func decoded(t *testing.T, b []byte) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := pod.Unmarshal(b); err != nil {
		t.Fatal(err)
	}
	return pod
}

// Programs of the machine list, get and watch pods once the agent knows them; one
// that does not read is cut off.
func TestPodsAPI(t *testing.T) {
	var ready atomic.Bool
	pods := []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "b", UID: "2"}}, {ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "1"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}}
	dir := t.TempDir()
	s := New(Config{Dir: dir, Pods: func() []*corev1.Pod { return pods }, Ready: ready.Load})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, "pods-api.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := podsv1alpha1.NewPodsClient(conn)
	if _, err := c.ListPods(ctx, &podsv1alpha1.ListPodsRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("not ready: %v", err)
	}
	ready.Store(true)
	list, err := c.ListPods(ctx, &podsv1alpha1.ListPodsRequest{})
	if err != nil || len(list.Pods) != 2 || decoded(t, list.Pods[0]).Name != "a" {
		t.Fatalf("list: %v, %v", list, err)
	}
	one, err := c.GetPod(ctx, &podsv1alpha1.GetPodRequest{PodUID: "1"})
	if err != nil || decoded(t, one.Pod).Status.Phase != corev1.PodRunning {
		t.Errorf("get: %v, %v", one, err)
	}
	if _, err := c.GetPod(ctx, &podsv1alpha1.GetPodRequest{PodUID: "3"}); status.Code(err) != codes.NotFound {
		t.Errorf("get one that is not there: %v", err)
	}
	watch, err := c.WatchPods(ctx, &podsv1alpha1.WatchPodsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func(kind podsv1alpha1.EventType, name string) {
		t.Helper()
		e, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got := decoded(t, e.Pod).Name; e.Type != kind || got != name {
			t.Errorf("got %v of %q, want %v of %q", e.Type, got, kind, name)
		}
	}
	next(podsv1alpha1.EventType_ADDED, "a")
	next(podsv1alpha1.EventType_ADDED, "b")
	next(podsv1alpha1.EventType_INITIAL_SYNC_COMPLETE, "")
	s.Changed(pods[0], false)
	s.Gone(pods[1])
	next(podsv1alpha1.EventType_MODIFIED, "b")
	next(podsv1alpha1.EventType_DELETED, "a")
	large := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: string(make([]byte, 1<<20))}}
	deadline := time.Now().Add(time.Minute)
	for { // until the connection holds no more, and nothing may wait any longer
		s.Changed(large, true)
		s.mu.Lock()
		left := len(s.clients)
		s.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("who does not read is not cut off")
		}
	}
	for err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the watch ended with %v", err)
	}
}
