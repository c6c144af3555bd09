// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Services measures a service proxy over an API server of this program: how
// long until the kernel does what the API says, and what a connection costs
// through it. It programs the network namespace that it runs in, which must be
// its own.
type Services struct {
	// Counts are the numbers of Services to measure with, each in turn.
	Counts []int
	// Changes are how often the endpoints of one Service change.
	Changes int
	// Connections are made in each of the ways.
	Connections int
	Workers     int
	// Binary is this program. Proxy is upstream's kube-proxy; the own one when
	// empty.
	Binary, Proxy string
}

// DefaultServices is what the budgets are written for.
func DefaultServices() Services {
	return Services{Counts: []int{1000, 10000}, Changes: 20, Connections: 5000, Workers: 8}
}

// Addresses of the machine that is measured.
const (
	servicesNode = "10.9.0.1"
	servicesNS   = "services"
	backendPort  = 8080
)

// backends are two sets of endpoints; who answers tells which one is in force.
func backends(set int) []string {
	out := make([]string, 3)
	for i := range out {
		out[i] = fmt.Sprintf("10.244.%d.%d", set, i+2)
	}
	return out
}

// Run measures with every number of Services.
func (s Services) Run(ctx context.Context, report *Report) error {
	if err := servicesNetwork(); err != nil {
		return err
	}
	stop, err := serveNames()
	if err != nil {
		return err
	}
	defer stop()
	for _, n := range s.Counts {
		if err := s.one(ctx, n, report); err != nil {
			return fmt.Errorf("%d services: %w", n, err)
		}
	}
	return nil
}

// servicesNetwork gives the namespace the addresses of a node and its pods.
func servicesNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "bench0"}, PeerName: "bench1"}
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("the network namespace is not a fresh one: %w", err)
	}
	peer, err := netlink.LinkByName(link.PeerName)
	if err != nil {
		return err
	}
	for _, l := range []netlink.Link{lo, link, peer} {
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	for _, text := range append(append([]string{servicesNode}, backends(0)...), backends(1)...) {
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: netlink.NewIPNet(net.ParseIP(text))}); err != nil {
			return err
		}
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Src: net.ParseIP(servicesNode)})
}

// serveNames answers every connection with the address it reached.
func serveNames() (stop func(), err error) {
	l, err := net.Listen("tcp4", net.JoinHostPort("", strconv.Itoa(backendPort)))
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // it was closed
			}
			host, _, _ := net.SplitHostPort(conn.LocalAddr().String())
			_, _ = conn.Write([]byte(host))
			conn.Close()
		}
	}()
	return func() { l.Close() }, nil
}

// ask returns who answers at an address.
func ask(ctx context.Context, address string) (string, error) {
	d := net.Dialer{Timeout: 2 * time.Second}
	conn, err := d.DialContext(ctx, "tcp4", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second)) // an error shows below
	b := make([]byte, 64)
	n, err := conn.Read(b)
	return string(b[:n]), err
}

type servicesRun struct {
	Services
	plane  *plane
	c      *client
	proxy  *Process
	report *Report
	n      int
}

func (s Services) one(ctx context.Context, n int, report *Report) error {
	p, err := startPlane(ctx, s.Binary)
	if err != nil {
		return err
	}
	defer p.stop()
	c, err := p.client()
	if err != nil {
		return err
	}
	r := &servicesRun{Services: s, plane: p, c: c, report: report, n: n}
	p.Target.Name = "kaji"
	if s.Proxy != "" {
		p.Target.Name = filepath.Base(s.Proxy)
	}
	if _, err := c.namespace(ctx, servicesNS); err != nil {
		return err
	}
	if err := c.post(ctx, "/api/v1/nodes", node()); err != nil {
		return err
	}
	if res := measure(ctx, "create", nil, s.Workers, n, r.create); res.Errors > 0 {
		return fmt.Errorf("making services: %s", res.Error)
	}
	for _, step := range []func(context.Context) error{r.start, r.changeOne, r.connections, r.changeAll} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func node() *corev1.Node {
	return &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "bench"},
		Spec:   corev1.NodeSpec{PodCIDR: "10.244.0.0/24", PodCIDRs: []string{"10.244.0.0/24"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: servicesNode}}}}
}

func serviceName(i int) string { return fmt.Sprintf("service-%06d", i) }

// nodePort is the first Service's.
const nodePort = 30080

// create makes a Service and its endpoints.
func (r *servicesRun) create(ctx context.Context, i int) (int64, error) {
	svc := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Name: serviceName(i)},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
	if i == 0 {
		svc.Spec.Type, svc.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, nodePort
	}
	if err := r.c.post(ctx, "/api/v1/namespaces/"+servicesNS+"/services", svc); err != nil {
		return 0, err
	}
	return 0, r.c.post(ctx, "/apis/discovery.k8s.io/v1/namespaces/"+servicesNS+"/endpointslices", endpointSlice(i, 0))
}

func endpointSlice(i, set int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  metav1.ObjectMeta{Name: serviceName(i), Labels: map[string]string{discoveryv1.LabelServiceName: serviceName(i)}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](backendPort), Protocol: ptr.To(corev1.ProtocolTCP)}}}
	for _, address := range backends(set) {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}})
	}
	return s
}

// lead gives a Service the endpoints of a set.
func (r *servicesRun) lead(ctx context.Context, i, set int) error {
	b, err := json.Marshal(endpointSlice(i, set))
	if err != nil {
		return err
	}
	_, err = r.c.do(ctx, http.MethodPut, "/apis/discovery.k8s.io/v1/namespaces/"+servicesNS+"/endpointslices/"+serviceName(i), asJSON, asJSON, b)
	return err
}

// address returns a Service's.
func (r *servicesRun) address(ctx context.Context, i int) (string, error) {
	var svc corev1.Service
	err := r.c.read(ctx, "/api/v1/namespaces/"+servicesNS+"/services/"+serviceName(i), &svc)
	return net.JoinHostPort(svc.Spec.ClusterIP, "80"), err
}

// leads waits until endpoints of the set answer at an address.
func leads(ctx context.Context, address string, set int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	return poll(ctx, time.Millisecond, func() (bool, error) {
		name, _ := ask(ctx, address)
		for _, b := range backends(set) {
			if name == b {
				return true, nil
			}
		}
		return false, nil
	})
}

const proxyConfiguration = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: bench
clusterCIDR: 10.244.0.0/16
clientConnection: {kubeconfig: %q}
conntrack: {maxPerCore: 0}
`

// start runs the proxy until all Services work.
func (r *servicesRun) start(ctx context.Context) error {
	file := filepath.Join(r.plane.dir, "proxy.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, proxyConfiguration, r.plane.config), 0o600); err != nil {
		return err
	}
	last, err := r.address(ctx, r.n-1)
	if err != nil {
		return err
	}
	began := time.Now()
	var pid int
	if r.Proxy != "" {
		pid, err = r.plane.exec(ctx, "proxy", r.Proxy, "--config", file)
	} else {
		pid, err = r.plane.run(ctx, "proxy", "--config", file)
	}
	if err != nil {
		return err
	}
	if r.proxy, err = Watch(pid); err != nil {
		return r.plane.explain("proxy", err)
	}
	if err := leads(ctx, last, 0); err != nil {
		return r.plane.explain("proxy", err)
	}
	r.add(Result{Operation: "start", Count: 1, Elapsed: time.Since(began), CPU: r.proxy.CPU()})
	return nil
}

func (r *servicesRun) add(res Result) {
	res.Operation = fmt.Sprintf("%d services: %s", r.n, res.Operation)
	res.RSS, res.Anonymous = r.proxy.Memory()
	add(r.report, r.plane.Target, res)
}

// changeOne measures from the write at the API until the kernel does it.
func (r *servicesRun) changeOne(ctx context.Context) error {
	at := r.n / 2
	address, err := r.address(ctx, at)
	if err != nil {
		return err
	}
	res := measure(ctx, "endpoints of one change", r.proxy, 1, r.Changes, func(ctx context.Context, i int) (int64, error) {
		set := (i + 1) % 2
		if err := r.lead(ctx, at, set); err != nil {
			return 0, err
		}
		return 0, leads(ctx, address, set)
	})
	r.add(res)
	return nil
}

// connections measures what a connection costs, directly and through the rules.
func (r *servicesRun) connections(ctx context.Context) error {
	address, err := r.address(ctx, r.n-1)
	if err != nil {
		return err
	}
	if r.n == 1 {
		return nil
	}
	if err := leads(ctx, net.JoinHostPort(servicesNode, strconv.Itoa(nodePort)), 0); err != nil {
		return err
	}
	for _, way := range []struct{ name, address string }{
		{"direct", net.JoinHostPort(backends(0)[0], strconv.Itoa(backendPort))}, {"ClusterIP", address},
		{"NodePort", net.JoinHostPort(servicesNode, strconv.Itoa(nodePort))},
	} {
		r.add(measure(ctx, "connections, "+way.name, nil, r.Workers, r.Connections, func(ctx context.Context, _ int) (int64, error) {
			name, err := ask(ctx, way.address)
			return int64(len(name)), err
		}))
	}
	return nil
}

// changeAll changes the endpoints of all Services but the one that changed.
func (r *servicesRun) changeAll(ctx context.Context) error {
	last, err := r.address(ctx, r.n-1)
	if err != nil {
		return err
	}
	before, began := r.proxy.CPU(), time.Now()
	if res := measure(ctx, "write", nil, r.Workers, r.n, func(ctx context.Context, i int) (int64, error) { return 0, r.lead(ctx, i, 1) }); res.Errors > 0 {
		return fmt.Errorf("changing endpoints: %s", res.Error)
	}
	written := time.Now()
	if err := leads(ctx, last, 1); err != nil {
		return err
	}
	r.add(Result{Operation: "endpoints of all change", Count: r.n, Elapsed: time.Since(began), CPU: r.proxy.CPU() - before})
	r.add(Result{Operation: "the last of these after its write", Count: 1, Elapsed: time.Since(written)})
	return nil
}
