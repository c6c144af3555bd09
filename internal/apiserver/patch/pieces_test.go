// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"encoding/json"
	"math/rand"
	"reflect"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/randfill"
)

// TestPieces merges patches between made-up objects field by field and as a
// whole, which must give the same.
func TestPieces(t *testing.T) {
	merged := 0
	for seed := range int64(60) {
		for _, empty := range []func() runtime.Object{
			func() runtime.Object { return &corev1.Pod{} },
			func() runtime.Object { return &corev1.Service{} },
			func() runtime.Object { return &appsv1.Deployment{} },
		} {
			before, after := empty(), empty()
			madeUp(seed).Fill(before)
			madeUp(seed).Fill(after)
			r := rand.New(rand.NewSource(seed))
			spec := reflect.ValueOf(after).Elem().FieldByName("Spec")
			for range 3 {
				madeUp(seed + 5000).Fill(spec.Field(r.Intn(spec.NumField())).Addr().Interface())
			}
			from, to := encoded(t, before), encoded(t, after)
			patch, err := strategicpatch.CreateTwoWayMergePatch(from, to, empty())
			if err != nil {
				continue // made up in a way that has no patch
			}
			if checkPieces(t, from, patch, empty) {
				merged++
			}
			if t.Failed() {
				t.Fatalf("seed %d, %T", seed, before)
			}
		}
	}
	if merged < 60 {
		t.Errorf("only %d of 180 patches were merged by pieces", merged)
	}
}

// TestPiecesOfDirectives tries what clients write by hand.
func TestPiecesOfDirectives(t *testing.T) {
	pod := encoded(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"a": "b", "c": "d"}, Finalizers: []string{"x/y", "x/z"}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "one", Image: "i"}, {Name: "two", Image: "j"}},
			Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		},
	})
	for patch, pieces := range map[string]bool{
		`{"metadata":{"labels":{"a":null,"e":"f"}}}`:                                                    true,
		`{"metadata":{"labels":null}}`:                                                                  true,
		`{"metadata":{"labels":{"$patch":"replace","only":"me"}}}`:                                      true,
		`{"metadata":{"$deleteFromPrimitiveList/finalizers":["x/y"]}}`:                                  true,
		`{"metadata":{"$setElementOrder/finalizers":["x/z","n/n"],"finalizers":["n/n"]}}`:               true,
		`{"spec":{"$setElementOrder/containers":[{"name":"two"},{"name":"one"}]}}`:                      true,
		`{"spec":{"containers":[{"name":"two","image":"k"},{"name":"one","$patch":"delete"}]}}`:         true,
		`{"spec":{"containers":[{"name":"two","image":"k"}]}}`:                                          true,
		`{"spec":{"containers":[{"name":"one","image":"k"},{"name":"two","image":null,"tty":true}]}}`:   true,
		`{"spec":{"containers":[{"name":"two","image":"k"},{"name":"one","tty":true}]}}`:                true,
		`{"spec":{"containers":[{"name":"two","image":"k"},{"name":"three","tty":true}]}}`:              true,
		`{"spec":{"containers":[{"name":"one","env":[{"name":"A","value":"1"},{"name":"B"}]}]}}`:        true,
		`{"spec":{"containers":[{"name":"one","ports":[{"containerPort":80}]}]}}`:                       true,
		`{"spec":{"containers":[{"name":"two","unknown":1}]}}`:                                          false,
		`{"spec":{"containers":[{"image":"k"}]}}`:                                                       false,
		`{"spec":{"volumes":[{"name":"v","$retainKeys":["name","hostPath"],"hostPath":{"path":"/"}}]}}`: true,
		`{"spec":{"$patch":"replace","containers":[{"name":"three"}]}}`:                                 true,
		`{"spec":{"securityContext":{"runAsUser":3}},"status":{"phase":"Running"}}`:                     true,
		`{"spec":{"unknown":1}}`:                             false,
		`{"spec":{"containers":[{"name":"two","image":7}]}}`: false,
		`{"spec":{"containers":"no list"}}`:                  false,
		`{"$patch":"delete"}`:                                false,
		`{"spec":"text"}`:                                    false,
	} {
		if got := checkPieces(t, pod, []byte(patch), func() runtime.Object { return &corev1.Pod{} }); got != pieces {
			t.Errorf("%s: merged by pieces: %t", patch, got)
		}
	}
}

// TestPiecesOfElements changes made-up elements of made-up lists.
func TestPiecesOfElements(t *testing.T) {
	for seed := range int64(200) {
		r := rand.New(rand.NewSource(seed))
		pod := &corev1.Pod{}
		madeUp(seed).Fill(pod)
		pod.Spec.Containers = nil
		var changes []map[string]any
		for i := range 1 + r.Intn(4) {
			c := corev1.Container{}
			madeUp(seed*10 + int64(i)).Fill(&c)
			c.Name = string(rune('a' + r.Intn(6)))
			pod.Spec.Containers = append(pod.Spec.Containers, c)
			if r.Intn(2) == 0 {
				changes = append(changes, map[string]any{
					"name": string(rune('a' + r.Intn(7))), "image": "new", "command": nil,
					"env": []any{map[string]any{"name": "X", "value": "y"}}, "resources": map[string]any{"limits": map[string]any{"cpu": "1"}},
				})
			}
		}
		patch := encoded(t, map[string]any{"spec": map[string]any{"containers": changes}})
		checkPieces(t, encoded(t, pod), patch, func() runtime.Object { return &corev1.Pod{} })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// checkPieces says whether the patch was merged by pieces, and compares.
func checkPieces(t *testing.T, from, patch []byte, empty func() runtime.Object) bool {
	t.Helper()
	obj, changes := empty(), map[string]any{}
	if err := json.Unmarshal(from, obj); err != nil {
		t.Fatal(err)
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(patch, &changes); err != nil {
		t.Fatal(err)
	}
	if !mergePieces(reflect.ValueOf(obj).Elem(), changes) {
		return false
	}
	whole, err := strategicpatch.StrategicMergePatch(from, patch, empty())
	if err != nil {
		t.Fatalf("patch %s of %s as a whole: %v", patch, from, err)
	}
	want := empty()
	if err := json.Unmarshal(whole, want); err != nil {
		t.Fatal(err)
	}
	if got, want := encoded(t, obj), encoded(t, want); string(got) != string(want) {
		t.Errorf("patch %s of %s\ngot  %s\nwant %s", patch, from, got, want)
	}
	return true
}

func encoded(t *testing.T, obj any) []byte {
	t.Helper()
	data, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func madeUp(seed int64) *randfill.Filler {
	return randfill.NewWithSeed(seed).NilChance(0.5).NumElements(1, 3).Funcs(
		func(s *string, c randfill.Continue) {
			*s = string([]byte{byte('a' + c.Intn(26)), byte('a' + c.Intn(26))})
		},
		func(f *metav1.FieldsV1, _ randfill.Continue) { f.Raw = []byte(`{"f:a":{}}`) },
		func(v *intstr.IntOrString, c randfill.Continue) { *v = intstr.FromInt32(c.Int31n(3)) },
		func(v *metav1.Time, _ randfill.Continue) { *v = metav1.Time{} },
	)
}
