// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

// What is held of an object is what Slim leaves of it; the whole of it is there
// all the same, also in events and of what is gone. All of many are loaded.
func TestSlim(t *testing.T) {
	b := start(t, Config{Slim: func(_ *api.Kind, obj api.Object) (api.Object, Packed) {
		whole := obj.(*corev1.Pod)
		held := &corev1.Pod{}
		held.Name = whole.Name
		return held, packedPod{whole}
	}})
	const n = 3*slimPage + 1
	for i := range n {
		b.put(fmt.Sprintf("pod-%03d", i), "node")
	}
	at := b.newest()
	if at.Len() != n {
		t.Fatalf("got %d objects, want %d", at.Len(), n)
	}
	for e := range at.All("", "") {
		check(t, e)
	}
	cursor := b.cache.Cursor(at)
	revision := b.remove("pod-000")
	if got := b.next(cursor); got == "" {
		t.Fatal("no event")
	}
	event, err := b.cache.Watch(t.Context(), b.kind, revision-1)
	if err != nil {
		t.Fatal(err)
	}
	last, err := event.TryNext()
	if err != nil || last == nil || !last.Deleted {
		t.Fatal(last, err)
	}
	check(t, last.Entry)
}

func check(t *testing.T, e *Entry) {
	t.Helper()
	held, whole := e.Object.(*corev1.Pod), e.Whole().(*corev1.Pod)
	if !e.Slim() || held.Spec.NodeName != "" || whole.Spec.NodeName != "node" || whole.Name != held.Name ||
		whole.ResourceVersion != fmt.Sprint(e.Revision) || held.ResourceVersion != whole.ResourceVersion {
		t.Errorf("%s: held %v, whole %v", e.Key, held, whole)
	}
}

type packedPod struct{ pod *corev1.Pod }

func (p packedPod) Whole() api.Object { return p.pod.DeepCopy() }
