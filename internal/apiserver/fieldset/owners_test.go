// SPDX-License-Identifier: Apache-2.0

package fieldset_test

import (
	"fmt"
	"math/rand"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"kaji/internal/api"
	"kaji/internal/apiserver/fieldset"
)

// oneVersion lets the library handle a kind that has one version.
type oneVersion struct {
	runtime.ObjectConvertor
	empty func() api.Object
}

func (oneVersion) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	return in, nil
}
func (oneVersion) Default(runtime.Object)                                {}
func (o oneVersion) New(schema.GroupVersionKind) (runtime.Object, error) { return o.empty(), nil }

// TestOwners lets several managers change made-up objects, and compares what
// managedFields say after each with what the library makes of the same.
func TestOwners(t *testing.T) {
	judged, told := 0, 0
	each(t, func(t *testing.T, types managedfields.TypeConverter, empty func() api.Object) {
		plan, gvk := planOf(t, types, empty()), empty().GetObjectKind().GroupVersionKind()
		reset := fieldpath.NewSet(fieldpath.MakePathOrDie("status"))
		stripped := fieldpath.NewSet(fieldpath.MakePathOrDie("metadata"))
		for _, name := range []string{"name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"} {
			stripped.Insert(fieldpath.MakePathOrDie("metadata", name))
		}
		one := oneVersion{empty: empty}
		library := map[string]*managedfields.FieldManager{}
		for _, subresource := range []string{"", "status"} {
			var filters map[fieldpath.APIVersion]fieldpath.Filter
			if subresource == "" {
				filters = map[fieldpath.APIVersion]fieldpath.Filter{fieldpath.APIVersion(gvk.GroupVersion().String()): fieldpath.NewExcludeSetFilter(reset)}
			}
			m, err := managedfields.NewDefaultFieldManager(types, one, one, one, gvk, gvk.GroupVersion(), subresource, filters)
			if err != nil {
				t.Fatal(err)
			}
			library[subresource] = m
		}
		for seed := range int64(5) {
			r := rand.New(rand.NewSource(seed))
			live := empty()
			fill(filler(seed), live)
			live.SetUID("u")
			live = library[""].UpdateNoErrors(empty(), live, "maker").(api.Object)
			for step := range int64(8) {
				for i := range live.GetManagedFields() {
					live.GetManagedFields()[i].Time = &metav1.Time{Time: time.Unix(1, 0)} // a second may pass between the two
				}
				next := live.DeepCopyObject().(api.Object)
				change(next, seed*100+step)
				next.SetUID("u")
				next.SetManagedFields(live.GetManagedFields())
				subresource := []string{"", "status"}[r.Intn(2)]
				w := &fieldset.Write{
					Manager: fmt.Sprintf("m%d", r.Intn(4)), Subresource: subresource, APIVersion: gvk.GroupVersion().String(), Stripped: stripped,
				}
				if subresource == "" {
					w.Reset = reset
				}
				bare := next.DeepCopyObject().(api.Object)
				var got []metav1.ManagedFieldsEntry
				var ok bool
				if w.Difference, ok = plan.Compare(live, bare); ok && live.GetManagedFields() != nil {
					got, ok = plan.Owners(live.GetManagedFields(), w)
				}
				live = library[subresource].UpdateNoErrors(live, next, w.Manager).(api.Object)
				judged++
				if !ok || got == nil && live.GetManagedFields() == nil {
					continue
				}
				told++
				if a, b := text(got), text(live.GetManagedFields()); a != b {
					t.Fatalf("seed %d, step %d, by %s of %q: got\n%s\nwant\n%s", seed, step, w.Manager, subresource, a, b)
				}
			}
		}
	})
	t.Logf("%d of %d writes told without the library", told, judged)
	if told*3 < judged*2 {
		t.Error("too much is left to the library")
	}
}

// text is what managedFields say, but for the times.
func text(entries []metav1.ManagedFieldsEntry) string {
	all := ""
	for _, e := range entries {
		all += fmt.Sprintf("%s %s %s %q %v %s\n", e.Manager, e.Operation, e.APIVersion, e.Subresource, e.Time != nil, e.FieldsV1.GetRawString())
	}
	return all
}
