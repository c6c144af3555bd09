// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// get reads an object once it is there.
func get[T any](a *asker, path string) *T {
	a.t.Helper()
	var got answer
	waitUntil(a.t, path+" is not there", func() bool { got = a.do("GET", path, ""); return got.code == 200 })
	var obj T
	if err := json.Unmarshal(got.body, &obj); err != nil {
		a.t.Fatal(err)
	}
	return &obj
}

// The objects of a fresh cluster that the server itself writes say by whom, as
// upstream's do.
func TestWhatEveryClusterBeginsWith(t *testing.T) {
	t.Parallel()
	p := start(t, "--service-cluster-ip-range", "10.0.0.0/24")
	root := p.as(t, "root")
	lease := get[coordinationv1.Lease](root, "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/"+serverID())
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if l := lease.Labels; l["apiserver.kubernetes.io/identity"] != "kube-apiserver" || l["kubernetes.io/hostname"] != host {
		t.Errorf("labels %v", l)
	}
	if s := lease.Spec; s.HolderIdentity == nil || !strings.HasPrefix(*s.HolderIdentity, serverID()+"_") || *s.LeaseDurationSeconds != 3600 || s.RenewTime == nil {
		t.Errorf("lease %+v", s)
	}
	if got := root.do("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.apiregistration.k8s.io", ""); got.code != 404 {
		t.Errorf("APIService of the APIServices: %v", got)
	}
	writers := func(managed []metav1.ManagedFieldsEntry) string {
		var all []string
		for _, m := range managed {
			all = append(all, m.Manager+" "+string(m.Operation)+" "+m.Subresource)
		}
		return strings.Join(all, "; ")
	}
	cidr := get[networkingv1.ServiceCIDR](root, "/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
	if got := writers(cidr.ManagedFields); got != "kubernetes-service-cidr-controller Apply status; kube-apiserver Update " {
		t.Errorf("ServiceCIDR: %s", got)
	}
	address := get[networkingv1.IPAddress](root, "/apis/networking.k8s.io/v1/ipaddresses/10.0.0.1")
	if got := writers(address.ManagedFields); got != "kube-apiserver Update " {
		t.Errorf("IPAddress: %s", got)
	}
}
