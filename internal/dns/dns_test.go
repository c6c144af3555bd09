// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/kajitest"
)

// asker is a ResponseWriter that keeps the answer.
type asker struct {
	dns.ResponseWriter
	answer *dns.Msg
	local  net.Addr
}

func (a *asker) LocalAddr() net.Addr       { return a.local }
func (a *asker) RemoteAddr() net.Addr      { return &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1)} }
func (a *asker) WriteMsg(m *dns.Msg) error { a.answer = m; return nil }

func ask(s *Server, name string, kind uint16) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	w := &asker{local: &net.TCPAddr{}}
	s.ServeDNS(w, q)
	return w.answer
}

// texts are the records of an answer, sorted, without their times.
func texts(records []dns.RR) []string {
	var out []string
	for _, r := range records {
		if r.Header().Rrtype != dns.TypeOPT {
			out = append(out, strings.TrimPrefix(r.String(), r.Header().String()))
		}
	}
	slices.Sort(out)
	return out
}

func serve(t *testing.T, change func(*Config)) (*Server, client.Interface) {
	t.Helper()
	api := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) {
		c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
	})).Client()
	cfg := Config{Client: api, ConfigMap: types.NamespacedName{Namespace: "kube-system", Name: "coredns"}, Resolv: "/dev/null"}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the informers", s.Ready)
	return s, api
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: did not happen", what)
		}
		<-tick.C
	}
}

func create[T client.Object](t *testing.T, api client.Interface, obj T) T {
	t.Helper()
	made, err := client.For[T](api).Create(context.Background(), obj)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the informer", func() bool {
		_, err := client.For[T](api).Cached(made.GetNamespace(), made.GetName())
		return err == nil
	})
	return made
}

func service(name string, change func(*corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}}}
	change(&s.Spec)
	return s
}

func slice(service string, kind discoveryv1.AddressType, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: service + "-" + strings.ToLower(string(kind)), Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: kind, Endpoints: endpoints, Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080), Protocol: ptr.To(corev1.ProtocolTCP)}}}
}

func TestNames(t *testing.T) {
	s, api := serve(t, nil)
	web := create(t, api, service("web", func(*corev1.ServiceSpec) {}))
	create(t, api, service("headless", func(s *corev1.ServiceSpec) { s.ClusterIP = corev1.ClusterIPNone }))
	create(t, api, service("empty", func(s *corev1.ServiceSpec) { s.ClusterIP = corev1.ClusterIPNone }))
	create(t, api, service("else", func(s *corev1.ServiceSpec) {
		s.Type, s.ExternalName, s.Ports = corev1.ServiceTypeExternalName, "www.example.com", nil
	}))
	create(t, api, service("inner", func(s *corev1.ServiceSpec) {
		s.Type, s.ExternalName, s.Ports = corev1.ServiceTypeExternalName, "web.default.svc.cluster.local", nil
	}))
	create(t, api, slice("headless", discoveryv1.AddressTypeIPv4,
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.5"}, Hostname: ptr.To("web-0")},
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.6"}},
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.7"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}}))
	create(t, api, slice("headless", discoveryv1.AddressTypeIPv6, discoveryv1.Endpoint{Addresses: []string{"fd00::5"}, Hostname: ptr.To("web-0")}))
	ip := web.Spec.ClusterIP
	const domain = "default.svc.cluster.local."
	reverse, err := dns.ReverseAddr(ip)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		kind   uint16
		code   int
		answer []string
	}{
		{"web." + domain, dns.TypeA, dns.RcodeSuccess, []string{ip}},
		{"WeB." + domain, dns.TypeA, dns.RcodeSuccess, []string{ip}},
		{"web." + domain, dns.TypeAAAA, dns.RcodeSuccess, nil},
		{"web." + domain, dns.TypeSRV, dns.RcodeSuccess, []string{"0 100 80 web." + domain}},
		{"_http._tcp.web." + domain, dns.TypeSRV, dns.RcodeSuccess, []string{"0 100 80 web." + domain}},
		{"_http._tcp.web." + domain, dns.TypeA, dns.RcodeSuccess, nil},
		{"_http._udp.web." + domain, dns.TypeSRV, dns.RcodeNameError, nil},
		{"_tcp.web." + domain, dns.TypeA, dns.RcodeSuccess, nil},
		{"no." + domain, dns.TypeA, dns.RcodeNameError, nil},
		{"web.nowhere.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, nil},
		{domain, dns.TypeA, dns.RcodeSuccess, nil},
		{"svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, nil},
		{"nowhere.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, nil},
		{"headless." + domain, dns.TypeA, dns.RcodeSuccess, []string{"10.244.0.5", "10.244.0.6"}},
		{"headless." + domain, dns.TypeAAAA, dns.RcodeSuccess, []string{"fd00::5"}},
		{"web-0.headless." + domain, dns.TypeA, dns.RcodeSuccess, []string{"10.244.0.5"}},
		{"web-0.headless." + domain, dns.TypeAAAA, dns.RcodeSuccess, []string{"fd00::5"}},
		{"10-244-0-6.headless." + domain, dns.TypeA, dns.RcodeSuccess, []string{"10.244.0.6"}},
		{"web-1.headless." + domain, dns.TypeA, dns.RcodeNameError, nil},
		{"_http._tcp.headless." + domain, dns.TypeSRV, dns.RcodeSuccess,
			[]string{"0 33 8080 10-244-0-6.headless." + domain, "0 33 8080 web-0.headless." + domain, "0 33 8080 web-0.headless." + domain}},
		{"empty." + domain, dns.TypeA, dns.RcodeNameError, nil},
		{"else." + domain, dns.TypeCNAME, dns.RcodeSuccess, []string{"www.example.com."}},
		{"inner." + domain, dns.TypeA, dns.RcodeSuccess, []string{ip, "web." + domain}},
		{"10-1-2-3.default.pod.cluster.local.", dns.TypeA, dns.RcodeSuccess, []string{"10.1.2.3"}},
		{"fd00--1.default.pod.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, []string{"fd00::1"}},
		{"10-1-2-3.nowhere.pod.cluster.local.", dns.TypeA, dns.RcodeNameError, nil},
		{"10-1-2.default.pod.cluster.local.", dns.TypeA, dns.RcodeNameError, nil},
		{"dns-version.cluster.local.", dns.TypeTXT, dns.RcodeSuccess, []string{`"1.1.0"`}},
		{"cluster.local.", dns.TypeNS, dns.RcodeSuccess, []string{"ns.dns.cluster.local."}},
		{"other.cluster.local.", dns.TypeA, dns.RcodeNameError, nil},
		{reverse, dns.TypePTR, dns.RcodeSuccess, []string{"web." + domain}},
		{"5.0.244.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, []string{"web-0.headless." + domain}},
		{"6.0.244.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, []string{"10-244-0-6.headless." + domain}},
		{"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, dns.RcodeSuccess, []string{"web-0.headless." + domain}},
		{"example.com.", dns.TypeA, dns.RcodeServerFailure, nil}, // nobody to forward to
	} {
		a := ask(s, c.name, c.kind)
		if got := texts(a.Answer); a.Rcode != c.code || !slices.Equal(got, c.answer) {
			t.Errorf("%s %s: %s %q, want %s %q", c.name, dns.TypeToString[c.kind], dns.RcodeToString[a.Rcode], got, dns.RcodeToString[c.code], c.answer)
		}
		if a.Rcode == dns.RcodeNameError && strings.HasSuffix(c.name, "cluster.local.") && len(a.Ns) != 1 {
			t.Errorf("%s: no SOA with a negative answer", c.name)
		}
		if len(a.Answer) > 0 && a.Answer[0].Header().Name != c.name {
			t.Errorf("%s is answered as %s", c.name, a.Answer[0].Header().Name)
		}
	}
}

// upstream is a name server on loopback that counts what it is asked.
func upstream(t *testing.T, answer func(*dns.Msg) *dns.Msg) (netip.AddrPort, *atomic.Int32) {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	asked := &atomic.Int32{}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		_ = w.WriteMsg(answer(q))
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ActivateAndServe() }()
	t.Cleanup(func() { conn.Close(); <-done })
	return netip.MustParseAddrPort(conn.LocalAddr().String()), asked
}

func TestForwardAndCorefile(t *testing.T) {
	at, asked := upstream(t, func(q *dns.Msg) *dns.Msg {
		a := new(dns.Msg)
		a.SetReply(q)
		r, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.7")
		a.Answer = []dns.RR{r}
		return a
	})
	s, api := serve(t, nil)
	if a := ask(s, "a.stub.example.", dns.TypeA); a.Rcode != dns.RcodeServerFailure {
		t.Fatalf("answered by nobody: %v", a)
	}
	settings := create(t, api, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "coredns"}, Data: map[string]string{"Corefile": fmt.Sprintf(`
. {
    kubernetes cluster.local
    hosts {
        192.0.2.1 fixed.example # a comment
        fallthrough
    }
}
stub.example:53 { # elsewhere
    forward . %s
    cache 30
}
`, at)}})
	until(t, "the stub domain", func() bool { return len(ask(s, "a.stub.example.", dns.TypeA).Answer) == 1 })
	before := asked.Load()
	a := ask(s, "a.STUB.example.", dns.TypeA)
	if asked.Load() != before || len(a.Answer) != 1 || a.Answer[0].Header().Ttl > 60 {
		t.Errorf("the answer was not kept: %v", a)
	}
	if got := texts(ask(s, "fixed.example.", dns.TypeA).Answer); !slices.Equal(got, []string{"192.0.2.1"}) {
		t.Errorf("hosts: %v", got)
	}
	if a := ask(s, "b.example.", dns.TypeA); a.Rcode != dns.RcodeRefused {
		t.Errorf("without forward: %v", a)
	}
	// Settings that make no sense change nothing.
	if _, err := client.For[*corev1.ConfigMap](api).MergePatch(t.Context(), "kube-system", "coredns", map[string]any{"data": map[string]any{"Corefile": "stub.example { teleport }"}}, ""); err != nil {
		t.Fatal(err)
	}
	until(t, "the informer", func() bool {
		m, err := client.For[*corev1.ConfigMap](api).Cached("kube-system", "coredns")
		return err == nil && m.ResourceVersion != settings.ResourceVersion
	})
	if len(ask(s, "a.stub.example.", dns.TypeA).Answer) != 1 {
		t.Error("bad settings took the good ones away")
	}
}

func FuzzServeDNS(f *testing.F) {
	f.Add(packed(f, 1, nil))
	for _, one := range hostile(f, 1) {
		f.Add(one.packet)
	}
	s, _ := serveFuzz(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(dns.Msg)
		if m.Unpack(data) != nil {
			return
		}
		w := &asker{local: &net.UDPAddr{}}
		s.ServeDNS(w, m)
		if w.answer == nil {
			t.Fatal("no answer")
		}
		if _, err := w.answer.Pack(); err != nil {
			t.Fatalf("an answer that cannot be sent: %v", err)
		}
	})
}

func serveFuzz(f *testing.F) (*Server, client.Interface) {
	api := kajitest.Start(f).Client()
	s, err := New(Config{Client: api, Resolv: "/dev/null"})
	if err != nil {
		f.Fatal(err)
	}
	for !s.Ready() {
		<-time.After(time.Millisecond)
	}
	return s, api
}

// TestStatus asks what CoreDNS's plug-ins answer, before and after a reload.
func TestStatus(t *testing.T) {
	registry := prometheus.NewRegistry()
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	metrics, health, ready, moved := free(), free(), free(), free()
	at := func(address string) string { return address[strings.LastIndexByte(address, ':'):] }
	s, _ := serve(t, func(c *Config) {
		c.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
		c.Metrics, c.Gatherer = registry, registry
	})
	text := ".:53 {\n prometheus " + at(metrics) + "\n health " + at(health) + " {\n lameduck 5s\n }\n ready " + at(ready) + "\n forward . 127.0.0.1:1\n}\n"
	if err := s.configure(text); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	ask(s, "example.org.", dns.TypeA)
	becomes := func(url, want string) {
		t.Helper()
		var got string
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
			<-time.After(10 * time.Millisecond)
			resp, err := http.Get(url)
			if err != nil {
				got = err.Error()
				continue
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if got = string(b); strings.Contains(got, want) {
				return
			}
		}
		t.Fatalf("%s: %s, want %s", url, got, want)
	}
	becomes("http://"+metrics+"/metrics", "coredns_dns_requests_total{")
	becomes("http://"+health+"/health", "OK")
	becomes("http://"+ready+"/ready", "OK")
	becomes("http://"+metrics+"/health", "OK")
	becomes("http://"+metrics+"/ready", "OK")
	if err := s.configure(strings.Replace(text, at(health), at(moved), 1)); err != nil {
		t.Fatal(err)
	}
	becomes("http://"+moved+"/health", "OK")
	if _, err := http.Get("http://" + health + "/health"); err == nil {
		t.Error("the old port still answers")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
