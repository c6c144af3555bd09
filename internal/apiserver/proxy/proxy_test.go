// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/websocket"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/request"
)

func TestContainerOf(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		Containers:     []corev1.Container{{Name: "a"}, {Name: "b"}},
		InitContainers: []corev1.Container{{Name: "i"}},
	}}
	pod.Name = "p"
	if got, err := containerOf(pod, "i"); err != nil || got != "i" {
		t.Errorf("init container: %q, %v", got, err)
	}
	if _, err := containerOf(pod, "x"); err == nil || err.Error() != "container x is not valid for pod p" {
		t.Errorf("unknown container: %v", err)
	}
	if _, err := containerOf(pod, ""); err == nil || err.Error() != "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]" {
		t.Errorf("no container: %v", err)
	}
	pod.Annotations = map[string]string{defaultContainer: "b"}
	if got, err := containerOf(pod, ""); err != nil || got != "b" {
		t.Errorf("default container: %q, %v", got, err)
	}
}

func TestProxyable(t *testing.T) {
	for address, want := range map[string]bool{
		"10.0.0.1": true, "fd00::1": true,
		"": false, "127.0.0.1": false, "::1": false, "169.254.169.254": false, "fe80::1": false, "0.0.0.0": false, "nonsense": false,
	} {
		if got := proxyable(address) == nil; got != want {
			t.Errorf("%q: %v", address, got)
		}
	}
}

func TestSplitName(t *testing.T) {
	for id, want := range map[string][3]string{
		"s": {"http", "s", ""}, "s:80": {"http", "s", "80"}, "https:s:web": {"https", "s", "web"}, ":s:1": {"http", "s", "1"},
	} {
		scheme, name, port, ok := splitName(id)
		if !ok || [3]string{scheme, name, port} != want {
			t.Errorf("%q: %q %q %q %v", id, scheme, name, port, ok)
		}
	}
	for _, id := range []string{"a:b:c:d", "ftp:s:1"} {
		if _, _, _, ok := splitName(id); ok {
			t.Errorf("%q accepted", id)
		}
	}
}

func TestReadQuery(t *testing.T) {
	query := url.Values{
		"follow": {"true"}, "tailLines": {"5"}, "sinceTime": {"2020-01-01T00:00:00Z"}, "container": {"c"}, "timestamps": {"0"},
	}
	var log corev1.PodLogOptions
	if err := readQuery(query, &log); err != nil {
		t.Fatal(err)
	}
	if !log.Follow || *log.TailLines != 5 || log.SinceTime.Year() != 2020 || log.Container != "c" || log.Timestamps {
		t.Errorf("options %+v", log)
	}
	var forward corev1.PodPortForwardOptions
	if err := readQuery(url.Values{"ports": {"80,81", "82"}}, &forward); err != nil || len(forward.Ports) != 3 {
		t.Errorf("ports %v, %v", forward.Ports, err)
	}
	if err := readQuery(url.Values{"tailLines": {"x"}}, &log); err == nil || err.Error() != `strconv.ParseInt: parsing "x": invalid syntax` {
		t.Errorf("bad number: %v", err)
	}
}

func FuzzReadQuery(f *testing.F) {
	f.Add("follow=1&tailLines=3&sinceTime=x")
	f.Fuzz(func(t *testing.T, raw string) {
		query, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		var log corev1.PodLogOptions
		if readQuery(query, &log) == nil {
			_ = logQuery(&log).Encode()
		}
	})
}

// of is what is known of a request to a path.
func of(path string, parts ...string) *request.Info {
	in := &request.Info{}
	in.Path, in.Parts = path, parts
	return in
}

// What follows "proxy" goes on to the backend; nothing at all, not even a
// slash, stays nothing, which readers are sent to the path with a slash for.
func TestRest(t *testing.T) {
	for path, want := range map[string]string{
		"/api/v1/namespaces/n/pods/p/proxy": "", "/api/v1/namespaces/n/pods/p/proxy/": "/",
		"/api/v1/namespaces/n/pods/p/proxy/a/b": "/a/b", "/api/v1/namespaces/n/pods/p/proxy/a/": "/a/",
	} {
		parts := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })[4:]
		if got := rest(of(path, parts...)); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// Readers of a backend's root are sent to the path with a slash, so that the
// links of its pages lead through the proxy; whoever writes is passed on.
func TestRoot(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Method+r.URL.Path) }))
	defer backend.Close()
	to, err := url.Parse(backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	const path = "/api/v1/namespaces/n/pods/p/proxy"
	for method, want := range map[string]int{http.MethodGet: 301, http.MethodHead: 301, http.MethodPost: 200, http.MethodDelete: 200, http.MethodOptions: 200} {
		w := httptest.NewRecorder()
		at := *to
		at.Path = rest(of(path, "pods", "p", "proxy"))
		pass(w, httptest.NewRequest(method, path+"?method=x", nil), &at, http.DefaultTransport)
		if w.Code != want || want == 301 && w.Header().Get("Location") != path+"/?method=x" || want == 200 && w.Body.String() != method+"/" {
			t.Errorf("%s: %d %q %q", method, w.Code, w.Header().Get("Location"), w.Body)
		}
	}
}

// pods knows the pod p on node n, whose kubelet listens at address.
type pods struct{ address string }

func (p pods) Fetch(_ context.Context, gvk schema.GroupVersionKind, _, _ string) (api.Object, error) {
	if gvk.Kind == "Pod" {
		pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c"}}}}
		pod.Name, pod.Namespace = "p", "default"
		return pod, nil
	}
	host, port, err := net.SplitHostPort(p.address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		return nil, err
	}
	node := &corev1.Node{}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: host}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(number)
	return node, nil
}

func (pods) Each(context.Context, schema.GroupVersionKind, string, func(api.Object) bool) error {
	return nil
}

// A log is read over a WebSocket as over plain HTTP.
func TestLogWebSocket(t *testing.T) {
	kubelet := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "alive\n") }))
	defer kubelet.Close()
	p := New(Config{Objects: pods{kubelet.Listener.Addr().String()}})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := of(r.URL.Path, "pods", "p", "log")
		in.Name, in.Namespace = "p", "default"
		if err := p.log(w, r, in); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	config, err := websocket.NewConfig("ws"+strings.TrimPrefix(server.URL, "http")+"/api/v1/namespaces/default/pods/p/log", server.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.Protocol = []string{"binary.k8s.io"}
	ws, err := websocket.DialConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	var all []byte
	for {
		var message []byte
		if err := websocket.Message.Receive(ws, &message); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, message...)
	}
	if string(all) != "alive\n" {
		t.Errorf("got %q", all)
	}
}
