// SPDX-License-Identifier: Apache-2.0

package status_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/kubelet/status"
	"kaji/kajitest"
)

// cut is a client whose server may be away; it counts what was tried meanwhile.
type cut struct {
	client.Interface
	away  atomic.Bool
	tried atomic.Int32
}

func (c *cut) Patch(ctx context.Context, r client.Resource, name string, kind types.PatchType, data []byte, o metav1.PatchOptions) (runtime.Object, error) {
	if c.away.Load() {
		c.tried.Add(1)
		return nil, errors.New("connection refused")
	}
	return c.Interface.Patch(ctx, r, name, kind, data, o)
}

// While the API server is away for an hour, what a pod does is kept, and it is
// tried now and then to tell of it; soon after the end of it the last state is known.
func TestServerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cut{Interface: kajitest.Start(t).Client()}
		pods := client.For[*corev1.Pod](c.Interface)
		pod, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
		if err != nil {
			t.Fatal(err)
		}
		m := status.NewManager(status.ManagerConfig{Client: c, Logger: slog.New(slog.DiscardHandler), Pod: func(types.UID) *corev1.Pod { return pod }})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := m.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		defer func() { cancel(); running.Wait() }()
		c.away.Store(true)
		for _, message := range []string{"first", "second", "last"} {
			m.Set(pod, corev1.PodStatus{Phase: corev1.PodRunning, Message: message}, true)
			time.Sleep(20 * time.Minute)
		}
		if n := c.tried.Load(); n < 60 || n > 200 {
			t.Errorf("%d attempts in an hour", n)
		}
		c.away.Store(false)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		got, err := pods.Get(t.Context(), "default", "p")
		if err != nil || got.Status.Phase != corev1.PodRunning || got.Status.Message != "last" {
			t.Errorf("got %+v, %v", got.Status, err)
		}
	})
}
