// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/pki"
)

// authority makes a certificate authority for a test.
func authority(t *testing.T, name string) *pki.CA {
	t.Helper()
	ca, err := pki.EnsureCA(t.TempDir(), "ca", name)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// reissue replaces a certificate and its key by those of another name.
func reissue(t *testing.T, ca *pki.CA, cert, key string, leaf pki.Leaf) {
	t.Helper()
	pair, err := ca.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, key, string(pair.Key))
	rewrite(t, cert, string(pair.Cert))
}

// shownTo serves TLS and notes the name that clients show themselves by.
func shownTo(t *testing.T) (*httptest.Server, func() string) {
	t.Helper()
	var name atomic.Pointer[string]
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown := ""
		if c := r.TLS.PeerCertificates; len(c) > 0 {
			shown = c[0].Subject.CommonName
		}
		name.Store(&shown)
		w.Header().Set("Connection", "close") // the next request shows itself anew
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"example.com/v1","resources":[]}`)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, func() string {
		if p := name.Load(); p != nil {
			return *p
		}
		return ""
	}
}

// The authority of front proxies, certificates by name, and what the server
// shows to node agents and to aggregated servers are read again when they change.
func TestCredentialsAreFollowed(t *testing.T) {
	t.Parallel()
	ca, proxies, freshProxies := authority(t, "any"), authority(t, "proxies"), authority(t, "fresh proxies")
	named, namedKey := files(t, ca, pki.Leaf{CommonName: "named", DNSNames: []string{"named.example"}})
	kubelet, kubeletKey := files(t, ca, pki.Leaf{CommonName: "to-kubelets", Client: true})
	proxy, proxyKey := files(t, ca, pki.Leaf{CommonName: "to-servers", Client: true})
	bundle := write(t, "proxies.pem", string(proxies.Cert))
	p := start(t, "--tls-sni-cert-key", named+","+namedKey, "--requestheader-client-ca-file", bundle, "--requestheader-username-headers", "X-Remote-User",
		"--kubelet-client-certificate", kubelet, "--kubelet-client-key", kubeletKey,
		"--proxy-client-cert-file", proxy, "--proxy-client-key-file", proxyKey)
	root := p.as(t, "root")

	behind := func(ca *pki.CA) int {
		pair, err := ca.Issue(pki.Leaf{CommonName: "proxy", Client: true})
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := pair.TLS()
		if err != nil {
			t.Fatal(err)
		}
		a := p.as(t, "", "X-Remote-User: carl")
		a.tls().Certificates = []tls.Certificate{certificate}
		return a.do("GET", "/api", "").code
	}
	if old, fresh := behind(proxies), behind(freshProxies); old != 403 && old != 200 || fresh != 401 {
		t.Errorf("front proxies: %d, of an unknown authority %d", old, fresh)
	}
	agent, shownToAgent := shownTo(t)
	host, port, err := net.SplitHostPort(agent.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	node := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": %q}],
		"daemonEndpoints": {"kubeletEndpoint": {"Port": %s}}}}`, host, port)
	root.must("/api/v1/nodes", node)
	if got := root.do("PUT", "/api/v1/nodes/n/status", node); got.code != 200 {
		t.Fatal(got)
	}
	atAgent := func() string { root.do("GET", "/api/v1/nodes/n/proxy/x", ""); return shownToAgent() }
	if got := atAgent(); got != "to-kubelets" {
		t.Errorf("node agents are shown %q", got)
	}
	server, shownToServer := shownTo(t)
	_, port, err = net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	root.must("/api/v1/namespaces/default/services", `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "behind"}, "spec": {"type": "ExternalName", "externalName": "localhost"}}`)
	root.must("/apis/apiregistration.k8s.io/v1/apiservices", `{"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.example.com"},
		"spec": {"group": "example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10, "insecureSkipTLSVerify": true,
		"service": {"namespace": "default", "name": "behind", "port": `+port+`}}}`)
	atServer := func() string { root.do("GET", "/apis/example.com/v1", ""); return shownToServer() }
	waitUntil(t, "the aggregated server is not shown the proxy's certificate", func() bool { return atServer() == "to-servers" })

	reissue(t, ca, named, namedKey, pki.Leaf{CommonName: "named again", DNSNames: []string{"named.example"}})
	reissue(t, ca, kubelet, kubeletKey, pki.Leaf{CommonName: "to-kubelets again", Client: true})
	reissue(t, ca, proxy, proxyKey, pki.Leaf{CommonName: "to-servers again", Client: true})
	rewrite(t, bundle, string(freshProxies.Cert))
	waitUntil(t, "a certificate by name is not renewed", func() bool { got, _ := p.shown(t, "named.example", nil); return got == "named again" })
	waitUntil(t, "node agents are shown the old certificate", func() bool { return atAgent() == "to-kubelets again" })
	waitUntil(t, "aggregated servers are shown the old certificate", func() bool { return atServer() == "to-servers again" })
	waitUntil(t, "a changed authority of front proxies is not taken over", func() bool { return behind(freshProxies) != 401 })
	if got := behind(proxies); got != 401 {
		t.Errorf("an authority of front proxies that was taken away: %d", got)
	}

	const config = "/api/v1/namespaces/kube-system/configmaps/" + published
	told := func() map[string]string { return get[corev1.ConfigMap](root, config).Data }
	waitUntil(t, "the changed authority is not published", func() bool {
		data := told()["requestheader-client-ca-file"]
		return strings.Contains(data, string(freshProxies.Cert)) && strings.Contains(data, string(proxies.Cert))
	})
	if _, ok := told()["requestheader-uid-headers"]; ok {
		t.Error("headers are published that were not named")
	}
	root.do("DELETE", config, "")
	waitUntil(t, "the deleted ConfigMap is not written again", func() bool { return told()["requestheader-client-ca-file"] == string(freshProxies.Cert) })
}

// With an authority for node agents the server speaks to none but its own; without
// one to any, as upstream.
func TestAuthorityOfNodeAgents(t *testing.T) {
	t.Parallel()
	ca, strange := authority(t, "agents"), authority(t, "strange")
	agent := func(ca *pki.CA) (port string) {
		t.Helper()
		pair, err := ca.Issue(pki.Leaf{CommonName: "system:node:n", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := pair.TLS()
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "agent") }))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
		s.StartTLS()
		t.Cleanup(s.Close)
		if _, port, err = net.SplitHostPort(s.Listener.Addr().String()); err != nil {
			t.Fatal(err)
		}
		return port
	}
	good, bad := agent(ca), agent(strange)
	for _, c := range []struct {
		args      []string
		good, bad int
	}{{[]string{"--kubelet-certificate-authority", write(t, "agents.pem", string(ca.Cert))}, 200, 503}, {nil, 200, 200}} {
		root := start(t, c.args...).as(t, "root")
		for name, port := range map[string]string{"good": good, "bad": bad} {
			node := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Node", "metadata": {"name": %q}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
				"daemonEndpoints": {"kubeletEndpoint": {"Port": %s}}}}`, name, port)
			root.must("/api/v1/nodes", node)
			if got := root.do("PUT", "/api/v1/nodes/"+name+"/status", node); got.code != 200 {
				t.Fatal(got)
			}
		}
		if got := root.do("GET", "/api/v1/nodes/good/proxy/x", ""); got.code != c.good || string(got.body) != "agent" {
			t.Errorf("%v: its own: %v", c.args, got)
		}
		if got := root.do("GET", "/api/v1/nodes/bad/proxy/x", ""); got.code != c.bad || c.bad != 200 && !strings.Contains(string(got.body), "certificate signed by unknown authority") {
			t.Errorf("%v: of a strange authority: %v", c.args, got)
		}
	}
}

// What several servers publish is joined; what expired goes.
func TestPublishedTogether(t *testing.T) {
	t.Parallel()
	a, b := string(authority(t, "a").Cert), string(authority(t, "b").Cert)
	have := map[string]string{"client-ca-file": a + "# a note\n", "requestheader-allowed-names": `["x","y"]`, "requestheader-group-headers": "no list"}
	own := map[string]string{"client-ca-file": b + a, "requestheader-allowed-names": `["y","z"]`, "requestheader-group-headers": `["G"]`}
	got := combined(have, own, time.Now())
	if got["client-ca-file"] != a+b || got["requestheader-allowed-names"] != `["x","y","z"]` || got["requestheader-group-headers"] != `["G"]` {
		t.Errorf("combined: %v", got)
	}
	if late := bundle(time.Now().AddDate(100, 0, 0), a, b); late != "" {
		t.Errorf("expired certificates stay: %s", late)
	}
}
