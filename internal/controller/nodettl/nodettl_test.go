// SPDX-License-Identifier: Apache-2.0

package nodettl_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/nodettl"
)

// The annotation follows the cluster's size, up and, later, down.
func TestSizes(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller { return []bubble.Controller{nodettl.New(api, nil)} }
	bubble.RunAs(t, "ttl-controller", start, func(b *bubble.Bubble) {
		nodes, count := client.For[*corev1.Node](b.API), 0
		resize := func(n int, want string) {
			b.Helper()
			for ; count < n; count++ {
				bubble.Must(nodes.Create(b.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", count)}}))(b)
			}
			for ; count > n; count-- {
				if err := nodes.Delete(b.Context(), "", fmt.Sprint("n", count-1), metav1.DeleteOptions{}); err != nil {
					b.Fatal(err)
				}
			}
			b.Settle()
			for _, node := range bubble.Must(nodes.List(b.Context(), "", metav1.ListOptions{}))(b) {
				if got := node.Annotations["node.alpha.kubernetes.io/ttl"]; got != want {
					b.Fatalf("of %d nodes %s has %q, want %s", n, node.Name, got, want)
				}
			}
		}
		resize(3, "0")
		resize(100, "0")
		resize(101, "15")
		resize(90, "15")
		resize(89, "0")
		resize(1, "0")
		bubble.Must(nodes.MergePatch(b.Context(), "", "n0", map[string]any{"metadata": map[string]any{"annotations": map[string]string{"node.alpha.kubernetes.io/ttl": "77"}}}, ""))(b)
		resize(1, "0") // put back
	})
}
