// SPDX-License-Identifier: Apache-2.0

package alloc_test

import (
	"net/netip"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver"
	"kaji/internal/apiserver/alloc"
	"kaji/internal/client"
	"kaji/internal/store"
	"kaji/kajitest"
)

func start(t *testing.T, ranges ...string) client.Typed[*corev1.Service] {
	t.Helper()
	c := kajitest.Start(t, kajitest.WithServer(func(cfg *apiserver.Config) {
		for _, r := range ranges {
			cfg.ServiceRanges = append(cfg.ServiceRanges, netip.MustParsePrefix(r))
		}
		cfg.NodePorts = alloc.PortRange{First: 30000, Last: 30003}
	}))
	return client.For[*corev1.Service](c.Client())
}

func service(name string, change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}
	if change != nil {
		change(s)
	}
	return s
}

func TestEveryServiceHasItsOwnAddress(t *testing.T) {
	services := start(t, "10.96.0.0/28")
	var mu sync.Mutex
	seen := map[string]string{}
	var made sync.WaitGroup
	for _, name := range strings.Split("a b c d e f g h", " ") {
		made.Go(func() {
			s, err := services.Create(t.Context(), service(name, nil))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if other := seen[s.Spec.ClusterIP]; other != "" || s.Spec.ClusterIP == "" {
				t.Errorf("%s and %s have %q", name, other, s.Spec.ClusterIP)
			}
			seen[s.Spec.ClusterIP] = name
		})
	}
	made.Wait()
}

func TestAddressIsGivenBack(t *testing.T) {
	ctx := t.Context()
	services := start(t, "10.96.0.0/16")
	asked := func(s *corev1.Service) { s.Spec.ClusterIP = "10.96.7.7" }
	if _, err := services.Create(ctx, service("a", asked)); err != nil {
		t.Fatal(err)
	}
	_, err := services.Create(ctx, service("b", asked))
	if err == nil || !strings.Contains(err.Error(), "failed to allocate IP 10.96.7.7: provided IP is already allocated") {
		t.Errorf("second owner: %v", err)
	}
	if err := services.Delete(ctx, "default", "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := services.Create(ctx, service("b", asked)); err != nil {
		t.Errorf("after deletion: %v", err)
	}
	_, err = services.Create(ctx, service("c", func(s *corev1.Service) { s.Spec.ClusterIP = "192.0.2.1" }))
	if err == nil || !strings.Contains(err.Error(), "the provided IP (192.0.2.1) is not in the valid range") {
		t.Errorf("outside: %v", err)
	}
}

func TestDualStack(t *testing.T) {
	ctx := t.Context()
	services := start(t, "10.96.0.0/16", "fd00::/112")
	prefer := corev1.IPFamilyPolicyPreferDualStack
	s, err := services.Create(ctx, service("both", func(s *corev1.Service) { s.Spec.IPFamilyPolicy = &prefer }))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Spec.ClusterIPs) != 2 || s.Spec.IPFamilies[0] != corev1.IPv4Protocol || s.Spec.IPFamilies[1] != corev1.IPv6Protocol {
		t.Errorf("spec %+v", s.Spec)
	}
	if s, err = services.Create(ctx, service("one", nil)); err != nil || len(s.Spec.ClusterIPs) != 1 || *s.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = services.Create(ctx, service("none", func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone })); err != nil || s.Spec.ClusterIP != corev1.ClusterIPNone {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestNodePorts(t *testing.T) {
	ctx := t.Context()
	services := start(t, "10.96.0.0/16")
	nodePort := func(port int32) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeNodePort
			s.Spec.Ports[0].NodePort = port
		}
	}
	a, err := services.Create(ctx, service("a", nodePort(0)))
	if err != nil {
		t.Fatal(err)
	}
	port := a.Spec.Ports[0].NodePort
	if port < 30000 || port > 30003 {
		t.Errorf("port %d", port)
	}
	_, err = services.Create(ctx, service("b", nodePort(port)))
	if err == nil || !strings.Contains(err.Error(), "provided port is already allocated") {
		t.Errorf("taken: %v", err)
	}
	_, err = services.Create(ctx, service("b", nodePort(31000)))
	if err == nil || !strings.Contains(err.Error(), "The range of valid ports is 30000-30003") {
		t.Errorf("outside: %v", err)
	}
	// A Service that needs none any more gives its port back.
	plain := a.DeepCopy()
	plain.Spec.Type = corev1.ServiceTypeClusterIP
	plain.Spec.Ports[0].NodePort = 0
	if _, err := services.Update(ctx, plain); err != nil {
		t.Fatal(err)
	}
	if _, err := services.Create(ctx, service("b", nodePort(port))); err != nil {
		t.Errorf("given back: %v", err)
	}
}

// A dry run takes no ports and answers with ones that nobody can have.
func TestDryRunPorts(t *testing.T) {
	ctx := t.Context()
	c := kajitest.Start(t)
	r := client.For[*corev1.Service](c.Client()).Resource("default")
	dry := func(port int32) (*corev1.Service, error) {
		obj, err := c.Client().Create(ctx, r, "", service("a", func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeNodePort
			s.Spec.Ports = []corev1.ServicePort{{Name: "x", Port: 80}, {Name: "y", Port: 81, NodePort: port}}
		}), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return nil, err
		}
		return obj.(*corev1.Service), nil
	}
	for port, want := range map[int32]int32{0: 32769, 40000: 40001} {
		s, err := dry(port)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Spec.Ports[0].NodePort; got != want {
			t.Errorf("beside port %d: port %d, want %d", port, got, want)
		}
	}
}

// What a Service asks for is judged before it is given anything.
func TestAskedAddresses(t *testing.T) {
	services := start(t, "10.96.0.0/16")
	_, err := services.Create(t.Context(), service("a", func(s *corev1.Service) {
		s.Spec.ClusterIPs, s.Spec.IPFamilies = []string{"x"}, []corev1.IPFamily{"Z"}
	}))
	for _, want := range []string{"spec.clusterIPs: Invalid value: [\"x\"]: must be empty when `clusterIP` is not specified", `spec.ipFamilies[0]: Unsupported value: "Z"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestAddressObject(t *testing.T) {
	ctx := t.Context()
	c := kajitest.Start(t, kajitest.WithServer(func(cfg *apiserver.Config) {
		cfg.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
	}))
	s, err := client.For[*corev1.Service](c.Client()).Create(ctx, service("a", nil))
	if err != nil {
		t.Fatal(err)
	}
	ip, err := client.For[*networkingv1.IPAddress](c.Client()).Get(ctx, "", s.Spec.ClusterIP)
	if err != nil {
		t.Fatal(err)
	}
	if ref := ip.Spec.ParentRef; ref.Resource != "services" || ref.Namespace != "default" || ref.Name != "a" {
		t.Errorf("parent %+v", ref)
	}
}

func TestRepair(t *testing.T) {
	ctx := t.Context()
	c := kajitest.Start(t, kajitest.WithServer(func(cfg *apiserver.Config) {
		cfg.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
	}))
	services, addresses := client.For[*corev1.Service](c.Client()), client.For[*networkingv1.IPAddress](c.Client())
	s, err := services.Create(ctx, service("a", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }))
	if err != nil {
		t.Fatal(err)
	}
	// What a foreign writer could have lost.
	if err := addresses.Delete(ctx, "", s.Spec.ClusterIP, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Store().Commit(ctx, store.Txn{Ops: []store.Op{{Key: "/registry/ranges/servicenodeports", Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	a := alloc.New(alloc.Config{
		Store: c.Store(), Cache: c.Server().Cache(), Kinds: c.Server().Kinds(), Ranges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	})
	if err := a.Repair(ctx, c.Server().Objects().CommitSide); err != nil {
		t.Fatal(err)
	}
	if _, err := addresses.Get(ctx, "", s.Spec.ClusterIP); err != nil {
		t.Errorf("address: %v", err)
	}
	_, err = services.Create(ctx, service("b", func(b *corev1.Service) {
		b.Spec.Type = corev1.ServiceTypeNodePort
		b.Spec.Ports[0].NodePort = s.Spec.Ports[0].NodePort
	}))
	if err == nil || !strings.Contains(err.Error(), "provided port is already allocated") {
		t.Errorf("port: %v", err)
	}
}
