// SPDX-License-Identifier: Apache-2.0

package history

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestDataHoldsTheTemplate(t *testing.T) {
	want := &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	data, err := Data(want)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(data), `{"spec":{"template":{"$patch":"replace",`) {
		t.Errorf("data is %s", data)
	}
	got, err := Template(&appsv1.ControllerRevision{Data: runtime.RawExtension{Raw: data}})
	if err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	one := int32(1)
	if Hash(data, nil) == Hash(data, &one) {
		t.Error("a collision changes no hash")
	}
}

func TestSurplusKeepsWhatIsUsed(t *testing.T) {
	var all []*appsv1.ControllerRevision
	for i := range 6 {
		all = append(all, &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: string(rune('a' + i))}, Revision: int64(6 - i)})
	}
	names := ""
	for _, r := range Surplus(all, 2, func(r *appsv1.ControllerRevision) bool { return r.Revision == 1 }) {
		names += r.Name
	}
	if names != "edc" {
		t.Errorf("deletes %q, want the oldest three that nobody uses", names)
	}
	if Next(all) != 7 || Next(nil) != 1 {
		t.Errorf("next is %d, %d", Next(all), Next(nil))
	}
	if n := Name(strings.Repeat("x", 300), "h"); len(n) != longestPrefix+2 {
		t.Errorf("name of %d", len(n))
	}
}
