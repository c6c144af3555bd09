// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/netfilter/nstest"
	"kaji/kajitest"
)

// town is a node with two pods, a client outside, and the API server.
type town struct {
	*testing.T
	api           client.Interface
	node, outside *nstest.Namespace
	metrics       *prometheus.Registry
}

const nodeIP = "192.0.2.10"

func podIP(i int) string { return fmt.Sprintf("10.244.%d.2", i) }

func newTown(t *testing.T) *town {
	w := &town{T: t, node: nstest.New(t), outside: nstest.New(t), metrics: prometheus.NewRegistry()}
	w.api = kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) { c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")} })).Client()
	w.node.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) })
	w.node.Connect("uplink", nodeIP+"/24", w.outside, "node", "192.0.2.1/24")
	w.outside.Route("10.0.0.0/8", nodeIP)
	for i := range 2 {
		pod := nstest.New(t)
		w.node.Connect(fmt.Sprintf("pod%d", i), fmt.Sprintf("10.244.%d.1/24", i), pod, "eth0", podIP(i)+"/24")
		pod.Route("default", fmt.Sprintf("10.244.%d.1", i))
		pod.Serve(":80", fmt.Sprintf("pod%d", i))
		pod.ServeUDP(podIP(i)+":53", fmt.Sprintf("pod%d", i))
	}
	create(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}})
	return w
}

func create[T client.Object](w *town, o T) T {
	w.Helper()
	made, err := client.For[T](w.api).Create(w.Context(), o)
	if err != nil {
		w.Fatal(err)
	}
	return made
}

// run starts a proxy; the function ends it.
func (w *town) run(metrics prometheus.Registerer) (stop func()) {
	w.Helper()
	p, err := New(Config{Client: w.api, NodeName: "here", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, NetNS: w.node.FD(),
		LocalhostNodePorts: true, Tracking: DefaultTracking(), HealthzBindAddress: "127.0.0.1:10256", Metrics: metrics})
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.Context()))
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	}
}

func (w *town) service(name string, spec corev1.ServiceSpec) *corev1.Service {
	w.Helper()
	return create(w, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: spec})
}

// leads makes a pod the one endpoint of a Service.
func (w *town) leads(service string, pod int, protocol corev1.Protocol, port int32) {
	w.Helper()
	slices := client.For[*discoveryv1.EndpointSlice](w.api)
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: &port, Protocol: &protocol}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{podIP(pod)}, NodeName: ptr.To("here")}}}
	if _, err := slices.Get(w.Context(), "default", service); err != nil {
		create(w, s)
		return
	}
	if _, err := slices.MergePatch(w.Context(), "default", service, map[string]any{"endpoints": s.Endpoints}, ""); err != nil {
		w.Fatal(err)
	}
}

// becomes waits until something is as wanted.
func (w *town) becomes(what string, want func() error) {
	w.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if err = want(); err == nil {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	w.Fatalf("%s: %v", what, err)
}

// TestLastingFlow: a client that goes on sending from one port follows the
// endpoints, also those that changed while no proxy ran.
func TestLastingFlow(t *testing.T) {
	w := newTown(t)
	svc := w.service("dns", corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}}})
	stop := w.run(nil)
	var conn net.Conn
	w.outside.Do(func() (err error) {
		conn, err = net.Dial("udp", svc.Spec.ClusterIP+":53")
		return err
	})
	defer conn.Close()
	answered := func(by string) func() error {
		return func() error {
			if _, err := conn.Write([]byte("?")); err != nil {
				return err
			}
			if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
				return err
			}
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || !strings.HasPrefix(line, by+" ") {
				return fmt.Errorf("answered by %q, %v", line, err)
			}
			return nil
		}
	}
	w.becomes("no endpoint", func() error { // the flow is there before its endpoint
		if answered("x")() == nil {
			return fmt.Errorf("answered")
		}
		return nil
	})
	for i := range 3 {
		w.leads("dns", i%2, corev1.ProtocolUDP, 53)
		w.becomes("after the endpoint changed", answered(fmt.Sprintf("pod%d", i%2)))
	}
	stop()
	w.leads("dns", 1, corev1.ProtocolUDP, 53)
	defer w.run(nil)()
	w.becomes("after a restart", answered("pod1"))
}

// A connection that is being made to a pod that is gone gets to another as soon as
// there is one: the client's next packet goes there.
func TestHalfOpenConnection(t *testing.T) {
	w := newTown(t)
	const gone = "10.244.0.77"
	w.node.Do(func() error { // it swallows all packets
		link, err := netlink.LinkByName("pod0")
		if err != nil {
			return err
		}
		return netlink.NeighAdd(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(gone), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
	})
	svc := w.service("web", corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}})
	create(w, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To(int32(80)), Protocol: ptr.To(corev1.ProtocolTCP)}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{gone}, NodeName: ptr.To("here")}}})
	defer w.run(nil)()
	tracked := func() (n int) {
		w.node.Do(func() error {
			all, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
			for _, flow := range all {
				if flow.Reverse.SrcIP.String() == gone {
					n++
				}
			}
			return err
		})
		return n
	}
	targets := []string{svc.Spec.ClusterIP + ":80", nodeIP + ":30080"}
	answers := make(chan error, len(targets))
	dial := func(to string) {
		var conn net.Conn
		w.outside.Do(func() (err error) {
			conn, err = net.DialTimeout("tcp", to, time.Minute)
			if err != nil {
				answers <- fmt.Errorf("%s: %w", to, err)
			}
			return nil
		})
		if conn == nil {
			return
		}
		defer conn.Close()
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err == nil && !strings.HasPrefix(line, "pod1 ") {
			err = fmt.Errorf("%s: answered %q", to, line)
		}
		answers <- err
	}
	w.becomes("the rules", func() error {
		w.outside.Do(func() error {
			conn, err := net.DialTimeout("tcp", targets[0], 10*time.Millisecond)
			if err == nil {
				conn.Close()
			}
			return nil
		})
		if tracked() == 0 {
			return fmt.Errorf("nothing goes to the pod that is gone")
		}
		return nil
	})
	before := tracked()
	for _, to := range targets {
		go dial(to)
	}
	w.becomes("the connections", func() error {
		if n := tracked(); n < before+len(targets) {
			return fmt.Errorf("%d go to the pod that is gone", n)
		}
		return nil
	})
	w.leads("web", 1, corev1.ProtocolTCP, 80)
	for range targets {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

func TestHealthAndLocalhost(t *testing.T) {
	w := newTown(t)
	stop := w.run(w.metrics)
	svc := w.service("web", corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}},
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: 32000})
	health := func(code, local int) func() error {
		return func() error {
			answer, err := w.get(fmt.Sprintf("http://%s:32000", nodeIP))
			if err != nil {
				return err
			}
			var body struct {
				Service        struct{ Namespace, Name string }
				LocalEndpoints int
			}
			if err := json.Unmarshal(answer.body, &body); err != nil {
				return err
			}
			if answer.code != code || body.LocalEndpoints != local || body.Service.Name != svc.Name || answer.weight != fmt.Sprint(local) {
				return fmt.Errorf("%+v %s", answer, answer.body)
			}
			return nil
		}
	}
	w.becomes("health without endpoints", health(503, 0))
	w.leads("web", 1, corev1.ProtocolTCP, 80)
	w.becomes("health with an endpoint", health(200, 1))
	w.becomes("the node port from outside", func() error {
		name, seen, err := w.outside.Ask("tcp", nodeIP+":30080")
		if err == nil && (name != "pod1" || seen != "192.0.2.1") {
			err = fmt.Errorf("%s saw %s", name, seen)
		}
		return err
	})
	w.node.MustReach("tcp", "127.0.0.1:30080", "pod1 10.244.1.1")
	w.node.Do(func() error {
		for name, want := range map[string]string{"established": "86400\n", "close_wait": "3600\n"} {
			if got, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_" + name); err != nil || string(got) != want {
				return fmt.Errorf("tracking of %s: %q, %w", name, got, err)
			}
		}
		return nil
	})
	w.checkHealthz()
	stop()
	w.checkMetrics()
}

type answer struct {
	code   int
	weight string
	body   []byte
}

func (w *town) get(url string) (out answer, err error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		w.outside.Do(func() error {
			conn, err = net.DialTimeout(network, address, time.Second)
			return nil
		})
		return conn, err
	}}
	resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get(url)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	out.code, out.weight = resp.StatusCode, resp.Header.Get("X-Load-Balancing-Endpoint-Weight")
	out.body = make([]byte, 4096)
	n, _ := resp.Body.Read(out.body)
	out.body = out.body[:n]
	return out, nil
}

// checkHealthz demands what kube-proxy answers.
func (w *town) checkHealthz() {
	w.Helper()
	w.node.Do(func() error {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:10256", 10*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET /healthz HTTP/1.0\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var got health
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
			return err
		}
		if resp.StatusCode != 200 || !got.Healthy || got.NodeEligible == nil || !*got.NodeEligible || !got.Status["IPv4"].Healthy || got.LastUpdated.IsZero() {
			return fmt.Errorf("healthz: %s, %+v", resp.Status, got)
		}
		return nil
	})
}

// checkMetrics demands upstream's names, with its labels.
func (w *town) checkMetrics() {
	w.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			got[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = f.GetType().String()
		}
	}
	for _, name := range []string{
		"sync_proxy_rules_duration_seconds{ip_family=IPv4}", "sync_full_proxy_rules_duration_seconds{ip_family=IPv4}",
		"sync_partial_proxy_rules_duration_seconds{ip_family=IPv4}", "sync_proxy_rules_last_timestamp_seconds{ip_family=IPv4}",
		"sync_proxy_rules_last_queued_timestamp_seconds{ip_family=IPv4}", "sync_proxy_rules_nftables_sync_failures_total{ip_family=IPv4}",
		"sync_proxy_rules_nftables_cleanup_failures_total{ip_family=IPv4}", "sync_proxy_rules_service_changes_total{}",
		"sync_proxy_rules_endpoint_changes_total{}", "sync_proxy_rules_service_changes_pending{}", "sync_proxy_rules_endpoint_changes_pending{}",
		"sync_proxy_rules_no_local_endpoints_total{ip_family=IPv4,traffic_policy=external}",
	} {
		if got["kubeproxy_"+name] == "" {
			w.Errorf("metric kubeproxy_%s is missing", name)
		}
	}
}
