// SPDX-License-Identifier: Apache-2.0

package endpointslice

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func endpointsOf(names string) (out []discoveryv1.Endpoint) {
	for name := range strings.FieldsSeq(names) {
		out = append(out, discoveryv1.Endpoint{Addresses: []string{name}})
	}
	return out
}

// TestPacking: few slices are written, and those that are get full.
func TestPacking(t *testing.T) {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "n", UID: "u"}, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1"}}
	for _, each := range []struct{ name, wanted, want string }{
		{"one more goes where it fits best", "a1 a2 a3 a4 b1 b2 c1 c2 c3 x", "a1 a2 a3 a4|b1 b2|c1 c2 c3 x"},
		{"what changes anyway is filled first", "a1 a2 a3 b1 b2 c1 c2 c3 x", "a1 a2 a3 x|b1 b2|c1 c2 c3"},
		{"two fit into the one with two", "a1 a2 a3 a4 b1 b2 c1 c2 c3 x y", "a1 a2 a3 a4|b1 b2 x y|c1 c2 c3"},
		{"three fit nowhere", "a1 a2 a3 a4 b1 b2 c1 c2 c3 x y z", "a1 a2 a3 a4|b1 b2|c1 c2 c3|x y z"},
		{"five are a full one and a rest", "a1 a2 a3 a4 b1 b2 c1 c2 c3 v w x y z", "a1 a2 a3 a4|b1 b2|c1 c2 c3 z|v w x y"},
		{"an emptied slice serves as a new one", "a1 a2 a3 a4 c1 c2 c3 x y", "a1 a2 a3 a4|c1 c2 c3|x y"},
	} {
		t.Run(each.name, func(t *testing.T) {
			var have []*discoveryv1.EndpointSlice
			for i, names := range []string{"a1 a2 a3 a4", "b1 b2", "c1 c2 c3"} {
				have = append(have, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s-", i), Labels: labelsOf(svc),
					OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, kind)}}, AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpointsOf(names)})
			}
			p := plan(svc, 4, []*group{{family: discoveryv1.AddressTypeIPv4, endpoints: endpointsOf(each.wanted)}}, have)
			var got []string
			for _, k := range p.keep {
				var names []string
				for _, e := range k.endpoints {
					names = append(names, e.Addresses[0])
				}
				got = append(got, strings.Join(names, " "))
			}
			slices.Sort(got)
			if s := strings.Join(got, "|"); s != each.want || len(p.drop) != 0 {
				t.Errorf("slices %s, %d dropped; want %s", s, len(p.drop), each.want)
			}
		})
	}
}
