// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/kajitest"
)

// world is a control plane, a controller and backends.
type world struct {
	t   *testing.T
	c   *Controller
	api client.Interface

	// listen opens ports.
	listen atomic.Value
	mu     sync.Mutex
	// pods lead from the addresses in EndpointSlices to real listeners; the
	// API takes no loopback addresses.
	pods map[string]string
}

func newWorld(t *testing.T, options ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, api: kajitest.Start(t).Client(), pods: map[string]string{}}
	w.listen.Store(anywhere)
	create(w, &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "kaji"}, Spec: networkingv1.IngressClassSpec{Controller: ControllerName}})
	node := create(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	node = node.DeepCopy()
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "n1"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.10"}}
	if _, err := client.For[*corev1.Node](w.api).UpdateStatus(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	w.run(options...)
	return w
}

// run runs the controller for the time of the test.
func (w *world) run(options ...func(*Config)) {
	w.t.Helper()
	t := w.t
	var err error
	config := Config{Client: w.api, NodeName: "n1", Lead: true, HTTPPort: 80, HTTPSPort: 443, Listen: w.open, Dial: w.dial}
	for _, set := range options {
		set(&config)
	}
	w.c, err = New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func (w *world) open(ctx context.Context, port uint16) (net.Listener, error) {
	return w.listen.Load().(func(context.Context, uint16) (net.Listener, error))(ctx, port)
}

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	to, ok := w.pods[address]
	w.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%s: connection refused", address)
	}
	return new(net.Dialer).DialContext(ctx, network, to)
}

func create[T client.Object](w *world, o T) T {
	w.t.Helper()
	made, err := client.For[T](w.api).Create(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return made
}

// pod makes an address lead to a handler.
func (w *world) pod(address string, h http.Handler) {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	w.t.Cleanup(s.Close)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pods[address] = s.Listener.Addr().String()
}

// service makes a Service with the endpoints at port 8080.
func (w *world) service(name string, addresses ...string) {
	w.t.Helper()
	create(w, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{
		ClusterIP: "None", Ports: []corev1.ServicePort{{Name: "web", Port: 80}}}})
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To("web"), Port: ptr.To[int32](8080)}}}
	for _, a := range addresses {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	create(w, slice)
}

// ingress makes an Ingress that sends a host to a Service of the same name.
func (w *world) ingress(service string, annotations map[string]string, change func(*networkingv1.Ingress)) *networkingv1.Ingress {
	w.t.Helper()
	ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: service, Annotations: annotations}, Spec: networkingv1.IngressSpec{
		IngressClassName: ptr.To("kaji"), Rules: []networkingv1.IngressRule{{Host: service + ".test", IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: ptr.To(networkingv1.PathTypePrefix),
				Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service, Port: networkingv1.ServiceBackendPort{Name: "web"}}}}}}}}}}}
	if change != nil {
		change(ing)
	}
	return create(w, ing)
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
		<-tick.C
	}
}

// at returns the address of a listener.
func (w *world) at(secure bool) string {
	port := uint16(80)
	if secure {
		port = 443
	}
	until(w.t, "the listener", func() bool { return w.c.ports.Bound(port) != nil })
	return w.c.ports.Bound(port).String()
}

// anywhere opens some port in place of another.
func anywhere(ctx context.Context, _ uint16) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
}

func (w *world) client() *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, w.at(strings.HasSuffix(address, ":443")))
	}, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

type reply struct {
	status int
	body   string
	header http.Header
	proto  int
}

func (w *world) do(r *http.Request) reply {
	w.t.Helper()
	answer, err := w.client().Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{answer.StatusCode, string(body), answer.Header, answer.ProtoMajor}
}

func (w *world) get(url string, headers ...string) reply {
	w.t.Helper()
	return w.call(http.MethodGet, url, headers...)
}

func (w *world) call(method, url string, headers ...string) reply {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return w.do(r)
}

// reaches waits until a host is served.
func (w *world) reaches(url string, status int) reply {
	w.t.Helper()
	var got reply
	until(w.t, fmt.Sprintf("%s answers %d", url, status), func() bool { got = w.get(url); return got.status == status })
	return got
}

func echo(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", name, r.Host, r.URL.RequestURI())
		for _, h := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Real-Ip", "X-Forwarded-Host"} {
			fmt.Fprintf(w, " %s", r.Header.Get(h))
		}
	})
}

func TestForwards(t *testing.T) {
	w := newWorld(t)
	w.pod("10.0.0.1:8080", echo("a"))
	w.pod("10.0.0.2:8080", echo("b"))
	w.service("app", "10.0.0.1", "10.0.0.2", "10.0.0.3") // nobody listens at the third
	ing := w.ingress("app", nil, nil)
	w.reaches("http://app.test/", 200)
	seen := map[string]int{}
	for range 12 {
		got := w.get("http://app.test/x%2Fy?q=1;2", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "gopher")
		name, rest, _ := strings.Cut(got.body, " ")
		seen[name]++
		if got.status != 200 || rest != "app.test /x%2Fy?q=1;2 127.0.0.1 http 127.0.0.1 app.test" {
			t.Fatalf("%d %q", got.status, got.body)
		}
	}
	if seen["a"] < 3 || seen["b"] < 3 {
		t.Errorf("not in turn: %v", seen)
	}
	if got := w.get("http://other.test/"); got.status != 404 || got.body != "default backend - 404" {
		t.Errorf("an unknown host: %d %q", got.status, got.body)
	}
	until(t, "the status", func() bool {
		now, err := client.For[*networkingv1.Ingress](w.api).Get(t.Context(), "default", "app")
		return err == nil && len(now.Status.LoadBalancer.Ingress) == 1 && now.Status.LoadBalancer.Ingress[0].IP == "192.0.2.10"
	})
	// A pod that is not ready is not asked; without any the answer is 503.
	slices := client.For[*discoveryv1.EndpointSlice](w.api)
	unready := map[string]any{"endpoints": []any{map[string]any{"addresses": []string{"10.0.0.1"}, "conditions": map[string]any{"ready": false}}}}
	if _, err := slices.MergePatch(t.Context(), "default", "app", unready, ""); err != nil {
		t.Fatal(err)
	}
	w.reaches("http://app.test/", 503)
	if err := client.For[*networkingv1.Ingress](w.api).Delete(t.Context(), "default", ing.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.reaches("http://app.test/", 404)
}

func TestOtherClasses(t *testing.T) {
	w := newWorld(t)
	w.pod("10.0.0.1:8080", echo("a"))
	for _, name := range []string{"mine", "theirs", "none", "old"} {
		w.service(name, "10.0.0.1")
	}
	create(w, &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "nginx"}, Spec: networkingv1.IngressClassSpec{Controller: "k8s.io/ingress-nginx"}})
	w.ingress("theirs", nil, func(i *networkingv1.Ingress) { i.Spec.IngressClassName = ptr.To("nginx") })
	w.ingress("none", nil, func(i *networkingv1.Ingress) { i.Spec.IngressClassName = nil })
	w.ingress("old", map[string]string{classAnnotation: "kaji"}, func(i *networkingv1.Ingress) { i.Spec.IngressClassName = nil })
	w.ingress("mine", nil, nil)
	w.reaches("http://mine.test/", 200)
	w.reaches("http://old.test/", 200)
	for _, host := range []string{"theirs", "none"} {
		if got := w.get("http://" + host + ".test/"); got.status != 404 {
			t.Errorf("%s is served: %d", host, got.status)
		}
	}
	class := map[string]any{"metadata": map[string]any{"annotations": map[string]any{defaultAnnotation: "true"}}}
	if _, err := client.For[*networkingv1.IngressClass](w.api).MergePatch(t.Context(), "", "kaji", class, ""); err != nil {
		t.Fatal(err)
	}
	w.reaches("http://none.test/", 200)
}

// pair makes a certificate for a host.
func pair(t *testing.T, host string) (chain, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// shown returns the common name of the certificate for a server name, or why
// there is none.
func (w *world) shown(host string) string {
	w.t.Helper()
	conn, err := tls.Dial("tcp", w.at(true), &tls.Config{ServerName: host, InsecureSkipVerify: true})
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestTLS(t *testing.T) {
	w := newWorld(t)
	w.pod("10.0.0.1:8080", echo("a"))
	w.service("app", "10.0.0.1")
	w.ingress("app", nil, func(i *networkingv1.Ingress) {
		i.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"app.test"}, SecretName: "cert"}}
	})
	w.reaches("https://app.test/", 200)
	if got := w.shown("app.test"); !strings.Contains(got, "Default Certificate") {
		t.Errorf("before there is a Secret, %q is shown", got)
	}
	until(t, "an Event about the missing Secret", func() bool { return w.hasEvent("Secret default/cert does not exist") })
	chain, key := pair(t, "one")
	secret := create(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "cert"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": chain, "tls.key": key}}).DeepCopy()
	until(t, "the certificate", func() bool { return w.shown("app.test") == "one" })
	if got := w.shown("other.test"); !strings.Contains(got, "Default Certificate") {
		t.Errorf("another host is shown %q", got)
	}
	secret.Data["tls.crt"], secret.Data["tls.key"] = pair(t, "two")
	if _, err := client.For[*corev1.Secret](w.api).Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	until(t, "the renewed certificate", func() bool { return w.shown("app.test") == "two" })
	got := w.get("https://app.test/x")
	if got.status != 200 || got.proto != 2 || !strings.Contains(got.body, " https ") {
		t.Errorf("over TLS: %+v", got)
	}
	plain := w.get("http://app.test/x?y=1")
	if want := "https://app.test/x?y=1"; plain.status != 308 || plain.header.Get("Location") != want {
		t.Errorf("in the clear: %d %q, want 308 %q", plain.status, plain.header.Get("Location"), want)
	}
}

func (w *world) hasEvent(text string) bool {
	all, err := client.For[*corev1.Event](w.api).List(w.t.Context(), "default", metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range all {
		if e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, text) {
			return true
		}
	}
	return false
}

func TestWebSocket(t *testing.T) {
	w := newWorld(t)
	w.pod("10.0.0.1:8080", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{}).Upgrade(rw, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			kind, data, err := conn.ReadMessage()
			if err != nil {
				return
			}
			if conn.WriteMessage(kind, bytes.ToUpper(data)) != nil {
				return
			}
		}
	}))
	w.service("app", "10.0.0.1")
	w.ingress("app", nil, nil)
	w.reaches("http://app.test/", 400) // not a WebSocket
	dialer := websocket.Dialer{NetDialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, w.at(false))
	}}
	conn, _, err := dialer.DialContext(t.Context(), "ws://app.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 3 {
		if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, data, err := conn.ReadMessage(); err != nil || string(data) != "HELLO" {
			t.Fatalf("%q %v", data, err)
		}
	}
}

// gRPC is HTTP/2 in the clear to the pod, with both directions open and trailers.
func TestGRPC(t *testing.T) {
	w := newWorld(t)
	w.pod("10.0.0.1:8080", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			rw.WriteHeader(505)
			return
		}
		rw.Header().Set("Trailer", "Grpc-Status")
		rw.WriteHeader(200)
		_ = http.NewResponseController(rw).Flush()
		some := make([]byte, 100)
		for {
			n, err := r.Body.Read(some)
			_, _ = rw.Write(some[:n])
			_ = http.NewResponseController(rw).Flush()
			if err != nil {
				break
			}
		}
		rw.Header().Set("Grpc-Status", "7")
	}))
	w.service("app", "10.0.0.1")
	w.ingress("app", map[string]string{"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"}, nil)
	w.reaches("https://app.test/", 200)
	body, feed := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://app.test/svc/Method", body)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := w.client().Do(r) // the headers come before the body was sent
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := feed.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(answer.Body, got); err != nil || string(got) != "ping" {
		t.Fatalf("%q %v", got, err)
	}
	feed.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.Trailer.Get("Grpc-Status") != "7" {
		t.Errorf("trailers are %v (%v)", answer.Trailer, err)
	}
}

func TestAnnotations(t *testing.T) {
	w := newWorld(t)
	w.pod("10.0.0.1:8080", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			echo("a").ServeHTTP(rw, r)
		}
	}))
	w.pod("10.0.0.2:8080", echo("b"))
	all := map[string]map[string]string{
		"rewrite": nginx("rewrite-target", "/to/$1"), "redirect": nginx("permanent-redirect", "https://example.com/a b"), "force": nginx("force-ssl-redirect", "true"),
		"small": nginx("proxy-body-size", "10"), "closed": nginx("whitelist-source-range", "10.0.0.0/8"), "open": nginx("whitelist-source-range", "127.0.0.0/8"),
		"limited": nginx("limit-rpm", "1", "limit-burst-multiplier", "1"), "sticky": nginx("affinity", "cookie", "session-cookie-name", "route"),
		"basic": nginx("auth-type", "basic", "auth-secret", "users"), "guarded": nginx("auth-tls-secret", "default/ca", "some-day", "x", "another", "y"), "cors": nginx("enable-cors", "true", "cors-allow-origin", "https://*.o.test"),
	}
	for name, annotations := range maps.All(all) {
		w.service(name, "10.0.0.1", "10.0.0.2")
		w.ingress(name, annotations, func(i *networkingv1.Ingress) {
			if name == "rewrite" {
				i.Spec.Rules[0].HTTP.Paths[0].Path = "/from/(.*)"
				i.Spec.Rules[0].HTTP.Paths[0].PathType = ptr.To(networkingv1.PathTypeImplementationSpecific)
			}
		})
	}
	got := w.reaches("http://rewrite.test/from/x/y?q=1", 200)
	if !strings.Contains(got.body, " /to/x/y?q=1 ") {
		t.Errorf("rewritten to %q", got.body)
	}
	if got := w.reaches("http://redirect.test/", 301); got.header.Get("Location") != "https://example.com/a b" {
		t.Errorf("redirected to %q", got.header.Get("Location"))
	}
	w.reaches("http://force.test/", 308)
	w.reaches("http://closed.test/", 403)
	w.reaches("http://open.test/", 200)
	w.reaches("http://guarded.test/", 503)
	until(t, "an Event about auth-tls-secret", func() bool { return w.hasEvent("annotation auth-tls-secret is not supported") })
	until(t, "one Event about all others", func() bool {
		return w.hasEvent("these annotations are not supported and have no effect: another, some-day")
	})
	w.reaches("http://limited.test/", 200)
	if got := w.get("http://limited.test/"); got.status != 503 {
		t.Errorf("over the limit: %d", got.status)
	}
	for _, chunked := range []bool{false, true} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://small.test/", io.MultiReader(strings.NewReader("more than ten bytes")))
		if err != nil {
			t.Fatal(err)
		}
		if !chunked {
			r.ContentLength = 19
		}
		w.reaches("http://small.test/", 200)
		if got := w.do(r); got.status != 413 {
			t.Errorf("too large a body (chunked %v): %d", chunked, got.status)
		}
	}
	first := w.reaches("http://sticky.test/", 200)
	cookie, _, _ := strings.Cut(first.header.Get("Set-Cookie"), ";")
	for range 5 {
		if got := w.get("http://sticky.test/", "Cookie", cookie); got.body != first.body || got.header.Get("Set-Cookie") != "" {
			t.Errorf("with the cookie %q: %q, first %q", cookie, got.body, first.body)
		}
	}
	if got := w.reaches("http://cors.test/", 200); got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("no origin is allowed something")
	}
	for origin, want := range map[string]string{"https://x.o.test": "https://x.o.test", "https://evil.test": "", "https://evil.test/.o.test": ""} {
		if got := w.get("http://cors.test/", "Origin", origin); got.header.Get("Access-Control-Allow-Origin") != want {
			t.Errorf("%s is allowed %q", origin, got.header.Get("Access-Control-Allow-Origin"))
		}
	}
	w.reaches("http://basic.test/", 503) // nobody is let in without the Secret
	create(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "users"}, Data: map[string][]byte{"auth": []byte("zoe:$apr1$xy$T6yk43HTfQwCY.mtbxwJ8/\n")}})
	if got := w.reaches("http://basic.test/", 401); got.header.Get("WWW-Authenticate") != `Basic realm="Authentication Required"` {
		t.Errorf("asked with %q", got.header.Get("WWW-Authenticate"))
	}
	for header, want := range map[string]int{"Basic em9lOmE=": 200, "Basic em9lOmI=": 401, "Bearer x": 401} {
		if got := w.get("http://basic.test/", "Authorization", header); got.status != want {
			t.Errorf("%s: %d, want %d", header, got.status, want)
		}
	}
}

func TestSlowBackends(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	w.pod("10.0.0.1:8080", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release) })
	w.service("app", "10.0.0.1")
	w.ingress("app", map[string]string{"kaji.dev/proxy-read-timeout": "1"}, nil)
	w.reaches("http://app.test/", 504)
}

func TestPortInUse(t *testing.T) {
	w := newWorld(t)
	taken := make(chan struct{})
	w.listen.Store(func(ctx context.Context, port uint16) (net.Listener, error) {
		select {
		case <-taken:
			return anywhere(ctx, port)
		default:
			return nil, &net.OpError{Op: "listen", Err: syscall.EADDRINUSE}
		}
	})
	w.pod("10.0.0.1:8080", echo("a"))
	w.service("app", "10.0.0.1")
	w.ingress("app", nil, nil)
	note := func(name string) string {
		n, err := client.For[*corev1.Node](w.api).Get(t.Context(), "", "n1")
		if err != nil {
			t.Fatal(err)
		}
		return n.Annotations[name]
	}
	until(t, "the node says that its port is in use", func() bool {
		return strings.Contains(note(problemAnnotation), "port 80 is in use by another program")
	})
	close(taken)
	w.reaches("http://app.test/", 200) // it takes the port as soon as it is free
	until(t, "the node says that it serves", func() bool { return note(problemAnnotation) == "" && note(servedAnnotation) == "80,443" })
}
