// SPDX-License-Identifier: Apache-2.0

package compose_test

import (
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/kubelet/compose"
)

func TestExpand(t *testing.T) {
	values := compose.In(map[string]string{"A": "1", "B": "$(A)"})
	for in, want := range map[string]string{
		"$(A)": "1", "x$(A)y$(A)": "x1y1", "$$(A)": "$(A)", "$(C)": "$(C)", "$(B)": "$(A)", "$": "$", "$A": "$A", "$(A": "$(A", "$$$$": "$$", "": "",
	} {
		if got := compose.Expand(in, values); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

type objects map[string]map[string]string

func (o objects) ConfigMap(_, name string) (*corev1.ConfigMap, error) {
	data, ok := o[name]
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), name)
	}
	return &corev1.ConfigMap{Data: data}, nil
}

func (o objects) Secret(_, name string) (*corev1.Secret, error) {
	return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
}

// Later variables see earlier ones, own ones hide those of services, and what
// is missing is said as upstream says it.
func TestEnv(t *testing.T) {
	yes := true
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", Annotations: map[string]string{"k": "v"}}}
	c := &corev1.Container{Name: "c", EnvFrom: []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}},
		Env: []corev1.EnvVar{
			{Name: "A", Value: "$(P_key)-$(WEB_SERVICE_HOST)"},
			{Name: "B", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['k']"}}},
			{Name: "C", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "D", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Key: "x", Optional: &yes}}},
			{Name: "WEB_SERVICE_PORT", Value: "own"},
		}}
	src := compose.EnvSources{Objects: objects{"cm": {"key": "value"}}, Facts: compose.Facts{Allocatable: corev1.ResourceList{"cpu": resource.MustParse("1500m")}},
		Services: []*corev1.Service{{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Port: 80}}}}}}
	env, err := compose.Env(pod, c, src)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, v := range env {
		got[v.Name] = v.Value
	}
	for name, want := range map[string]string{"P_key": "value", "A": "value-10.0.0.1", "B": "v", "C": "2", "WEB_SERVICE_PORT": "own", "WEB_PORT_80_TCP_ADDR": "10.0.0.1"} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	if _, ok := got["D"]; ok {
		t.Error("an optional reference that leads nowhere made a variable")
	}
	c.Env = []corev1.EnvVar{{Name: "E", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "x"}}}}
	var config *compose.ConfigError
	if _, err := compose.Env(pod, c, src); !errors.As(err, &config) || err.Error() != "couldn't find key x in ConfigMap ns/cm" {
		t.Errorf("got %v", err)
	}
}

// Each policy makes the resolver's configuration that upstream makes of it.
func TestDNS(t *testing.T) {
	d := compose.DNS{Cluster: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Domain: "cluster.local", HostConfig: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("# host\nnameserver 192.0.2.53\nsearch example.com.\noptions timeout:1\n")), nil
	}}
	ndots := "2"
	own := &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.1"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &ndots}}}
	for _, c := range []struct {
		policy                     corev1.DNSPolicy
		host                       bool
		own                        *corev1.PodDNSConfig
		servers, searches, options string
	}{
		{corev1.DNSClusterFirst, false, nil, "10.96.0.10", "ns.svc.cluster.local svc.cluster.local cluster.local example.com", "ndots:5"},
		{corev1.DNSClusterFirst, true, nil, "192.0.2.53", "example.com", "timeout:1"},
		{corev1.DNSClusterFirstWithHostNet, true, nil, "10.96.0.10", "ns.svc.cluster.local svc.cluster.local cluster.local example.com", "ndots:5"},
		{corev1.DNSDefault, false, nil, "192.0.2.53", "example.com", "timeout:1"},
		{corev1.DNSNone, false, own, "192.0.2.1", "", "ndots:2"},
		{corev1.DNSClusterFirst, false, own, "10.96.0.10 192.0.2.1", "ns.svc.cluster.local svc.cluster.local cluster.local example.com", "ndots:2"},
	} {
		got, warnings, err := d.Config(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: corev1.PodSpec{DNSPolicy: c.policy, HostNetwork: c.host, DNSConfig: c.own}})
		if err != nil || len(warnings) > 0 {
			t.Fatal(warnings, err)
		}
		if strings.Join(got.Servers, " ") != c.servers || strings.Join(got.Searches, " ") != c.searches || strings.Join(got.Options, " ") != c.options {
			t.Errorf("%s (host %t): got %v", c.policy, c.host, got)
		}
	}
	d.Cluster = nil
	_, warnings, err := d.Config(&corev1.Pod{Spec: corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}})
	if err != nil || !slices.ContainsFunc(warnings, func(w compose.Warning) bool { return w.Reason == "MissingClusterDNS" }) {
		t.Errorf("got %v, %v without a cluster's name server", warnings, err)
	}
}

// Whatever a host's file holds, reading it does not panic.
func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 1.1.1.1\nsearch a b.\noptions x:1")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := compose.ParseResolvConf(strings.NewReader(text)); err == nil && c == nil {
			t.Error("got nothing and no error")
		}
	})
}
