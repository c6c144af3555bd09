// SPDX-License-Identifier: Apache-2.0

package object_test

import (
	"context"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/store"
	"kaji/kajitest"
)

// departing is a store whose next writer's client goes while the write is on its
// way: it is done, and its answer lost to those who wait no longer.
type departing struct {
	store.Store
	next atomic.Pointer[context.CancelFunc]
}

func (d *departing) Commit(ctx context.Context, t store.Txn) (*store.TxnResult, error) {
	result, err := d.Store.Commit(context.WithoutCancel(ctx), t)
	if gone := d.next.Swap(nil); gone != nil {
		(*gone)()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return result, err
}

// A pod that is to go at once goes, though its client goes while it is marked.
func TestClientOfDeletionDeparts(t *testing.T) {
	d := &departing{}
	c := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) { d.Store, c.Store = c.Store, d }))
	pods := client.For[*corev1.Pod](c.Client())
	if _, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	d.next.Store(&cancel)
	_ = pods.Delete(ctx, "default", "p", metav1.DeleteOptions{}) // whatever it answers, nobody hears it
	if p, err := pods.Get(t.Context(), "default", "p"); !apierrors.IsNotFound(err) {
		t.Errorf("the pod is there: %v %v", p, err)
	}
}
