// SPDX-License-Identifier: Apache-2.0

package servicelb

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/controller/balance"
	"kaji/internal/controller/controllertest"
	"kaji/kajitest"
)

// bench is an API server with the controller over it.
type bench struct {
	*testing.T
	api      client.Interface
	services client.Typed[*corev1.Service]
}

func newBench(t *testing.T, pools ...string) *bench {
	t.Helper()
	b := &bench{T: t, api: kajitest.Start(t).Client()}
	b.services = client.For[*corev1.Service](b.api)
	t.Cleanup(b.run(b.api, pools...))
	return b
}

// run starts a controller; the function ends it.
func (b *bench) run(api client.Interface, pools ...string) (stop func()) {
	b.Helper()
	parsed, err := ParsePools(pools)
	if err != nil {
		b.Fatal(err)
	}
	c := New(Config{Client: api, Pools: parsed, Reserved: []int32{22}, Ingress: []int32{80}, Logger: slog.New(slog.NewTextHandler(b.Output(), nil))})
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	api.Start(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

// service creates one of type LoadBalancer at port 80.
func (b *bench) service(name string, change func(*corev1.Service)) {
	b.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": name},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
	if change != nil {
		change(s)
	}
	if _, err := b.services.Create(b.Context(), s); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) change(name string, change func(*corev1.Service)) {
	b.Helper()
	for {
		s, err := b.services.Get(b.Context(), "default", name)
		if err != nil {
			b.Fatal(err)
		}
		s = s.DeepCopy()
		change(s)
		if _, err := b.services.Update(b.Context(), s); err == nil {
			return
		} else if !apierrors.IsConflict(err) {
			b.Fatal(err)
		}
	}
}

// eventually waits until a Service is as it should be.
func (b *bench) eventually(name string, want func(*corev1.Service) string) {
	b.Helper()
	wrong := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		s, err := b.services.Get(b.Context(), "default", name)
		if err != nil {
			b.Fatal(err)
		}
		if wrong = want(s); wrong == "" {
			return
		}
		select {
		case <-b.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	b.Fatalf("Service %s: %s", name, wrong)
}

// gets waits until a Service has exactly the addresses.
func (b *bench) gets(name string, addrs ...string) {
	b.Helper()
	b.eventually(name, func(s *corev1.Service) string {
		var got []string
		for _, i := range s.Status.LoadBalancer.Ingress {
			if *i.IPMode != corev1.LoadBalancerIPModeVIP {
				return "not of mode VIP"
			}
			got = append(got, i.IP)
		}
		if !slices.Equal(got, addrs) || !balance.Kept(s) {
			return fmt.Sprintf("has %v and finalizers %v, want %v", got, s.Finalizers, addrs)
		}
		return ""
	})
}

// waits waits until a Service is refused with words.
func (b *bench) waits(name, words string) {
	b.Helper()
	b.eventually(name, func(s *corev1.Service) string {
		if len(s.Status.LoadBalancer.Ingress) != 0 || len(s.Status.Conditions) != 1 || !strings.Contains(s.Status.Conditions[0].Message, words) {
			return fmt.Sprintf("%+v, want the words %q", s.Status, words)
		}
		return ""
	})
	b.event(name, "SyncLoadBalancerFailed", "Error syncing load balancer: failed to ensure load balancer: ")
}

func (b *bench) event(name, reason, message string) {
	b.Helper()
	events := client.For[*corev1.Event](b.api)
	for deadline := time.Now().Add(time.Minute); ; {
		all, err := events.List(b.Context(), "default", metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
		if err != nil {
			b.Fatal(err)
		}
		if slices.ContainsFunc(all, func(e *corev1.Event) bool {
			return e.Reason == reason && strings.HasPrefix(e.Message, message) && e.Source.Component == "service-controller"
		}) {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("Service %s has no event %s %q", name, reason, message)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (b *bench) delete(name string) {
	b.Helper()
	if err := b.services.Delete(b.Context(), "default", name, metav1.DeleteOptions{}); err != nil {
		b.Fatal(err)
	}
}

// gone waits until a deleted Service was let go.
func (b *bench) gone(name string) {
	b.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		_, err := b.services.Get(b.Context(), "default", name)
		if apierrors.IsNotFound(err) {
			return
		}
		if err != nil || time.Now().After(deadline) {
			b.Fatalf("Service %s is still there (%v)", name, err)
		}
	}
}

func dual(s *corev1.Service) {
	s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
}

func TestPool(t *testing.T) {
	b := newBench(t, "192.0.2.10-192.0.2.11")
	b.service("a", nil)
	b.gets("a", "192.0.2.10")
	b.event("a", "EnsuringLoadBalancer", "Ensuring load balancer")
	b.event("a", "EnsuredLoadBalancer", "Ensured load balancer")
	b.service("b", nil)
	b.gets("b", "192.0.2.11")
	b.service("c", nil)
	b.waits("c", "no address is left in the pools 192.0.2.10-192.0.2.11")

	// What is freed goes to who waits, by deletion and by a change of type.
	b.delete("a")
	b.gets("c", "192.0.2.10")
	b.service("d", nil)
	b.waits("d", "no address is left")
	b.change("b", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	b.gets("d", "192.0.2.11")
	b.event("b", "DeletedLoadBalancer", "Deleted load balancer")
	b.eventually("b", func(s *corev1.Service) string {
		if len(s.Finalizers)+len(s.Status.LoadBalancer.Ingress)+len(s.Annotations) != 0 {
			return fmt.Sprintf("left: %v %v %v", s.Finalizers, s.Status, s.Annotations)
		}
		return ""
	})
}

func TestRequests(t *testing.T) {
	b := newBench(t, "192.0.2.10-192.0.2.19")
	b.service("ip", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.0.2.15" })
	b.gets("ip", "192.0.2.15")
	b.service("annotated", func(s *corev1.Service) { s.Annotations["metallb.io/loadBalancerIPs"] = "192.0.2.16" })
	b.gets("annotated", "192.0.2.16")
	b.service("outside", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "198.51.100.1" })
	b.waits("outside", "198.51.100.1 is in none of the pools 192.0.2.10-192.0.2.19")
	b.service("taken", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.0.2.15" })
	b.waits("taken", "Service default/ip has it")
	b.change("taken", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "" })
	b.gets("taken", "192.0.2.10")
	b.change("taken", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.0.2.17" })
	b.gets("taken", "192.0.2.17")

	b.service("class", func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr.To(Class) })
	b.gets("class", "192.0.2.10")
	b.service("foreign", func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr.To("example.com/lb") })
	b.service("cloud", func(s *corev1.Service) {
		s.Annotations["service.beta.kubernetes.io/aws-load-balancer-type"] = "nlb"
		s.Annotations["service.beta.kubernetes.io/aws-load-balancer-proxy-protocol"] = "*"
	})
	b.gets("cloud", "192.0.2.11")
	b.event("cloud", "UnsupportedLoadBalancerAnnotation", "The annotation service.beta.kubernetes.io/aws-load-balancer-proxy-protocol has no effect: ")
	s, err := b.services.Get(t.Context(), "default", "foreign")
	if err != nil || len(s.Finalizers)+len(s.Status.LoadBalancer.Ingress) != 0 {
		t.Errorf("a Service of another class was touched: %+v %v", s, err)
	}
}

func TestSharing(t *testing.T) {
	b := newBench(t, "192.0.2.10-192.0.2.12")
	key := func(port int32, more func(*corev1.Service)) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Annotations["kaji.dev/load-balancer-sharing-key"] = "k"
			s.Spec.Ports[0].Port = port
			if more != nil {
				more(s)
			}
		}
	}
	b.service("a", key(80, nil))
	b.gets("a", "192.0.2.10")
	b.service("b", key(443, nil))
	b.gets("b", "192.0.2.10")
	b.service("same-port", key(80, nil))
	b.gets("same-port", "192.0.2.11")
	b.service("udp", key(80, func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP }))
	b.gets("udp", "192.0.2.10")
	b.service("local", key(81, func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }))
	b.gets("local", "192.0.2.12")
	b.service("stranger", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.0.2.10"; s.Spec.Ports[0].Port = 90 })
	b.waits("stranger", "with another sharing key or none")
}

// TestRestart: the status is the memory, and pools may change.
func TestRestart(t *testing.T) {
	b := &bench{T: t, api: kajitest.Start(t).Client()}
	b.services = client.For[*corev1.Service](b.api)
	stop := b.run(b.api, "192.0.2.10-192.0.2.19")
	b.service("a", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.0.2.11" })
	b.gets("a", "192.0.2.11")
	b.service("b", nil)
	b.gets("b", "192.0.2.10")
	b.change("a", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "" })
	stop()
	b.delete("b")
	stop = b.run(b.api, "192.0.2.10-192.0.2.19")
	b.gone("b")
	b.service("c", nil)
	b.gets("c", "192.0.2.10")
	b.gets("a", "192.0.2.11")
	stop()
	// Which of them comes first in the new pool is nobody's promise.
	defer b.run(b.api, "198.51.100.0/30")()
	given := map[string]bool{}
	for _, name := range []string{"a", "c"} {
		b.eventually(name, func(s *corev1.Service) string {
			if l := s.Status.LoadBalancer.Ingress; len(l) == 1 && (l[0].IP == "198.51.100.1" || l[0].IP == "198.51.100.2") {
				given[l[0].IP] = true
				return ""
			}
			return fmt.Sprintf("has %v", s.Status.LoadBalancer.Ingress)
		})
	}
	if len(given) != 2 {
		t.Errorf("both have %v", given)
	}
}

func (b *bench) node(name string, addrs ...string) {
	b.Helper()
	nodes := client.For[*corev1.Node](b.api)
	if _, err := nodes.Create(b.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		b.Fatal(err)
	}
	b.ready(name, true, addrs...)
}

func (b *bench) ready(name string, ready bool, addrs ...string) {
	b.Helper()
	status := corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: map[bool]corev1.ConditionStatus{true: corev1.ConditionTrue, false: corev1.ConditionUnknown}[ready]}}}
	for _, a := range addrs {
		status.Addresses = append(status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	if _, err := client.For[*corev1.Node](b.api).MergePatch(b.Context(), "", name, map[string]any{"status": status}, "status"); err != nil {
		b.Fatal(err)
	}
}

func TestNodes(t *testing.T) {
	b := newBench(t)
	b.service("a", nil)
	b.event("a", "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer")
	b.node("n1", "203.0.113.1")
	b.gets("a", "203.0.113.1")
	b.event("a", "IngressPortTaken", "Port 80 of the nodes' addresses")
	b.node("n2", "203.0.113.2")
	b.gets("a", "203.0.113.1", "203.0.113.2")
	b.event("a", "UpdatedLoadBalancer", "Updated load balancer with new hosts")
	b.service("b", nil)
	b.waits("b", "port 80/TCP of the nodes' addresses is Service default/a's")
	b.service("ssh", func(s *corev1.Service) { s.Spec.Ports[0].Port = 22 })
	b.waits("ssh", "port 22/TCP of the nodes' addresses is the nodes' own")

	// Traffic that stays on its node comes to the nodes with endpoints.
	b.service("local", func(s *corev1.Service) {
		s.Spec.ExternalTrafficPolicy, s.Spec.Ports[0].Port = corev1.ServiceExternalTrafficPolicyLocal, 81
	})
	b.gets("local", "203.0.113.1", "203.0.113.2")
	_, err := client.For[*discoveryv1.EndpointSlice](b.api).Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "local-1", Labels: map[string]string{discoveryv1.LabelServiceName: "local"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, NodeName: ptr.To("n2")}}})
	if err != nil {
		t.Fatal(err)
	}
	b.gets("local", "203.0.113.2")

	b.ready("n1", false, "203.0.113.1")
	b.gets("a", "203.0.113.2")
	b.ready("n2", false, "203.0.113.2")
	b.gets("a", "203.0.113.2")
	b.delete("a")
	b.ready("n1", true, "203.0.113.1")
	b.gets("b", "203.0.113.1")
}

func TestDualStack(t *testing.T) {
	b := &bench{T: t, api: kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) {
		c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/108")}
	})).Client()}
	b.services = client.For[*corev1.Service](b.api)
	defer b.run(b.api, "192.0.2.10", "2001:db8::10-2001:db8::11")()
	b.service("a", dual)
	b.gets("a", "192.0.2.10", "2001:db8::10")
	b.service("b", dual)
	b.waits("b", "no address is left in the pools 192.0.2.10")
	b.service("c", func(s *corev1.Service) { s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyPreferDualStack) })
	b.gets("c", "2001:db8::11")
}

// TestRights: the controller's own account may do all it does.
func TestRights(t *testing.T) {
	cluster := kajitest.Start(t, kajitest.WithRBAC())
	b := &bench{T: t, api: cluster.Client()}
	b.services = client.For[*corev1.Service](b.api)
	own := client.WithInformers(cluster.As(&user.DefaultInfo{Name: "system:serviceaccount:kube-system:service-controller",
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"}}), b.api)
	defer b.run(own, "192.0.2.10")()
	b.service("a", nil)
	b.gets("a", "192.0.2.10")
	b.event("a", "EnsuredLoadBalancer", "")
}

func TestFaults(t *testing.T) {
	var faults controllertest.Faults
	b := &bench{T: t, api: kajitest.Start(t).Client()}
	b.services = client.For[*corev1.Service](b.api)
	defer b.run(faults.Client(b.api), "192.0.2.10-192.0.2.12")()
	for _, name := range []string{"a", "b", "c"} {
		b.service(name, nil)
		b.eventually(name, func(s *corev1.Service) string {
			if len(s.Status.LoadBalancer.Ingress) == 1 {
				return ""
			}
			return "has no address"
		})
	}
	if faults.Met() == 0 {
		t.Error("no fault was met")
	}
}

func TestParsePools(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.64/28": "192.0.2.65-192.0.2.78", "192.0.2.64/31": "192.0.2.64-192.0.2.65", "192.0.2.7": "192.0.2.7-192.0.2.7",
		" 192.0.2.1 - 192.0.2.9": "192.0.2.1-192.0.2.9", "2001:db8::/126": "2001:db8::-2001:db8::3",
		"x": "", "192.0.2.9-192.0.2.1": "", "192.0.2.1-2001:db8::1": "", "127.0.0.0/8": "", "0.0.0.0": "", "224.0.0.1": "", "::ffff:1.2.3.4": "", "fe80::1%eth0": "",
	} {
		got, err := ParsePools([]string{text})
		switch {
		case want == "" && err == nil:
			t.Errorf("%q was taken for %v", text, got)
		case want != "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case want != "" && got[0].first.String()+"-"+got[0].last.String() != want:
			t.Errorf("%q is %s-%s, want %s", text, got[0].first, got[0].last, want)
		}
	}
	if _, err := ParsePools([]string{"192.0.2.0/24", "192.0.2.255"}); err != nil {
		t.Error(err)
	}
	if _, err := ParsePools([]string{"192.0.2.0/24", "192.0.2.9-192.0.3.9"}); err == nil {
		t.Error("overlapping pools were taken")
	}
}

// TestReach: clouds' annotations choose between private and public pools.
func TestReach(t *testing.T) {
	b := newBench(t, "10.1.0.1-10.1.0.9", "192.0.2.1-192.0.2.9")
	b.service("inside", func(s *corev1.Service) {
		s.Annotations["service.beta.kubernetes.io/aws-load-balancer-scheme"] = "internal"
	})
	b.gets("inside", "10.1.0.1")
	b.service("outside", func(s *corev1.Service) {
		s.Annotations["service.beta.kubernetes.io/aws-load-balancer-scheme"] = "internet-facing"
	})
	b.gets("outside", "192.0.2.1")
}
