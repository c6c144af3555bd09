// SPDX-License-Identifier: Apache-2.0

package extension_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kaji/internal/pki"
	"kaji/test/extension"
	"kaji/test/machine"
)

// orchard is an extension API server on a test's machine.
type orchard struct {
	address string
	server  *extension.Server
	config  *tls.Config
	ca      []byte

	web  *http.Server
	done chan struct{}
}

// newOrchard prepares a server that takes its users from the cluster's front
// proxy alone, as the cluster publishes it.
func newOrchard(t *testing.T, m *machine.Machine) *orchard {
	t.Helper()
	ca, err := pki.EnsureCA(t.TempDir(), "ca", "orchard")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Leaf{CommonName: "orchard", DNSNames: []string{"orchard.default.svc"}})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	proxies := x509.NewCertPool()
	if !proxies.AppendCertsFromPEM([]byte(m.Must(t, "kubectl", "get", "configmap", "-n", "kube-system", "extension-apiserver-authentication",
		"-o", `jsonpath={.data.requestheader-client-ca-file}`))) {
		t.Fatal("the cluster does not publish its front proxy's certificate authority")
	}
	return &orchard{
		address: "10.9.0.1:0", ca: ca.Pair.Cert, server: &extension.Server{Proxies: proxies},
		config: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert},
	}
}

// start serves on the machine, the second time where it did the first.
func (o *orchard) start(t *testing.T, m *machine.Machine) {
	t.Helper()
	var l net.Listener
	if err := m.Do(func() (err error) { l, err = net.Listen("tcp", o.address); return err }); err != nil {
		t.Fatal(err)
	}
	o.address = l.Addr().String()
	web, done := &http.Server{Handler: o.server, TLSConfig: o.config, ReadHeaderTimeout: time.Minute}, make(chan struct{})
	o.web, o.done = web, done
	go func() { defer close(done); _ = web.ServeTLS(l, "", "") }() // ends by stop
	t.Cleanup(o.stop)
}

func (o *orchard) stop() {
	_ = o.web.Close()
	<-o.done
}

const registration = `
apiVersion: v1
kind: Service
metadata: {name: orchard, namespace: default}
spec: {ports: [{name: https, port: 443, targetPort: %[2]s}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: orchard-1, namespace: default, labels: {kubernetes.io/service-name: orchard}}
addressType: IPv4
endpoints: [{addresses: ["%[1]s"], conditions: {ready: true}}]
ports: [{name: https, port: %[2]s, protocol: TCP}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.orchard.example.com}
spec:
  group: orchard.example.com
  version: v1
  groupPriorityMinimum: 1000
  versionPriority: 10
  service: {namespace: default, name: orchard}
  caBundle: %[3]s
`

const fruit = `{"apiVersion": "orchard.example.com/v1", "kind": "Fruit", "metadata": {"name": %q}, "spec": {"color": %q, "grams": 180}}`

func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.yaml")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// follow starts a command that goes on until the test ends, and returns what waits
// until it has printed some words.
func follow(t *testing.T, m *machine.Machine, name string, args ...string) func(words string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, err := os.CreateTemp(t.TempDir(), "output-*")
	if err != nil {
		t.Fatal(err)
	}
	cmd := m.Command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := m.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		out.Close()
	})
	return func(words string) {
		t.Helper()
		m.Eventually(t, func(printed string) bool { return strings.Contains(strings.Join(strings.Fields(printed), " "), words) }, "cat", out.Name())
	}
}

// An extension API server is used through kubectl like what is built in: it is
// discovered, explained, and its objects made, shown, watched and deleted. While
// it is down all else works.
func TestThroughKubectl(t *testing.T) {
	m := machine.New(t)
	m.Must(t, "kaji", "up")
	o := newOrchard(t, m)
	o.start(t, m)
	host, port, err := net.SplitHostPort(o.address)
	if err != nil {
		t.Fatal(err)
	}
	m.Must(t, "kubectl", "apply", "-f", file(t, fmt.Sprintf(registration, host, port, base64.StdEncoding.EncodeToString(o.ca))))
	wait := func() {
		t.Helper()
		m.Must(t, "kubectl", "wait", "--for=condition=Available", "apiservice/v1.orchard.example.com", "--timeout=60s")
	}
	wait()
	expect := func(want []string, args ...string) {
		t.Helper()
		out := strings.Join(strings.Fields(m.Must(t, "kubectl", args...)), " ")
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("kubectl %s: no %q in\n%s", strings.Join(args, " "), w, out)
			}
		}
	}
	expect([]string{"fruits fr orchard.example.com/v1 true Fruit"}, "api-resources", "--api-group=orchard.example.com")
	expect([]string{"fruit.orchard.example.com/apple created"}, "create", "-f", file(t, fmt.Sprintf(fruit, "apple", "red")))
	expect([]string{"fruit.orchard.example.com/pear created"}, "create", "-f", file(t, fmt.Sprintf(fruit, "pear", "green")))
	expect([]string{"NAME COLOR GRAMS apple red 180 pear green 180"}, "get", "fruits")
	expect([]string{"NAMESPACE NAME COLOR GRAMS default apple red 180"}, "get", "fr", "-A")
	expect([]string{"kubernetes-admin"}, "get", "fruit", "apple", "-o", `jsonpath={.metadata.annotations.orchard\.example\.com/creator}`)
	expect([]string{"FIELD: spec <Object>", "What the fruit is like.", "color <string> -required- The colour of the ripe fruit.", "grams <integer>"},
		"explain", "fruit.spec")
	expect([]string{"grams <integer>"}, "explain", "fruit.spec", "--output=plaintext-openapiv2")
	watched := follow(t, m, "kubectl", "get", "fruits", "-w", "--output-watch-events")
	watched("EVENT NAME COLOR GRAMS ADDED apple red 180 ADDED pear green 180")
	expect([]string{`fruit.orchard.example.com "pear" deleted`}, "delete", "fruit", "pear")
	watched("DELETED pear green 180")
	expect([]string{"fruit.orchard.example.com/plum created"}, "create", "-f", file(t, fmt.Sprintf(fruit, "plum", "violet")))
	watched("ADDED plum violet 180")
	expect([]string{`fruit.orchard.example.com "plum" deleted`}, "delete", "fruit", "plum")
	if out, err := m.Run(t, "kubectl", "create", "-f", file(t, fmt.Sprintf(fruit, "void", ""))); err == nil || !strings.Contains(out, "spec.color: Required value") {
		t.Errorf("a bad fruit: %v\n%s", err, out)
	}
	if out, err := m.Run(t, "kubectl", "get", "fruits", "--as=bob"); err == nil || !strings.Contains(out, `fruits.orchard.example.com is forbidden: User "bob" cannot list resource "fruits"`) {
		t.Errorf("as bob: %v\n%s", err, out)
	}

	// A namespace goes with its fruits.
	m.Must(t, "kubectl", "create", "namespace", "trees")
	m.Must(t, "kubectl", "create", "-n", "trees", "-f", file(t, fmt.Sprintf(fruit, "fig", "blue")))
	m.Must(t, "kubectl", "delete", "namespace", "trees", "--timeout=60s")
	if out := m.Must(t, "kubectl", "get", "fruits", "-A"); strings.Contains(out, "fig") || !strings.Contains(out, "apple") {
		t.Errorf("after its namespace:\n%s", out)
	}

	o.stop()
	m.Must(t, "kubectl", "label", "endpointslice", "orchard-1", "look=again")
	m.Must(t, "kubectl", "wait", "--for=condition=Available=false", "apiservice/v1.orchard.example.com", "--timeout=60s")
	expect([]string{"False (FailedDiscoveryCheck)"}, "get", "apiservice", "v1.orchard.example.com")
	expect([]string{"service/kubernetes ClusterIP", "apiservice.apiregistration.k8s.io/v1.apps Local True"}, "get", "services,apiservices")
	expect([]string{"deployments deploy apps/v1 true Deployment"}, "api-resources")
	if out, err := m.Run(t, "kubectl", "get", "fruits.v1.orchard.example.com"); err == nil {
		t.Errorf("fruits of a server that is down:\n%s", out)
	}
	o.start(t, m)
	wait()
	m.Eventually(t, func(out string) bool { return strings.Contains(out, "apple") }, "kubectl", "get", "fruits")
}
