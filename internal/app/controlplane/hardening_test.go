// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/pki"
)

// Keys, credentials and the store are their owner's only.
func TestFilesOnDisk(t *testing.T) {
	t.Parallel()
	p := start(t)
	dir := p.Options.DataDir
	if err := p.WriteAdminKubeconfig(filepath.Join(dir, "admin.kubeconfig"), "kaji", netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	mode := func(path string) os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	for path, want := range map[string]os.FileMode{"store": 0o700, "pki": 0o700, "admin.kubeconfig": 0o600} {
		if got := mode(filepath.Join(dir, path)); got != want {
			t.Errorf("%s: %o, want %o", path, got, want)
		}
	}
	// There are no manifests of control-plane components, and no kubeconfigs but
	// the administrator's: one process runs them.
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains([]string{"admin.kubeconfig", "pki", "store", "tokens.csv"}, e.Name()) { // the last is the test's
			t.Errorf("there is %s", e.Name())
		}
	}
	keys, err := filepath.Glob(filepath.Join(dir, "pki", "*.key"))
	if err != nil || len(keys) < 5 {
		t.Fatalf("keys %v, %v", keys, err)
	}
	certificates, err := filepath.Glob(filepath.Join(dir, "pki", "*.crt"))
	if err != nil || len(certificates) < 5 {
		t.Fatalf("certificates %v, %v", certificates, err)
	}
	for _, key := range keys {
		if got := mode(key); got != 0o600 {
			t.Errorf("%s: %o", key, got)
		}
	}
	for _, cert := range certificates {
		if got := mode(cert); got&0o022 != 0 {
			t.Errorf("%s: %o", cert, got)
		}
	}
}

// Without any flag, who is not known reads public information only, there is no
// plain-text port, and who is known may nothing that he was not granted.
func TestDefaultsAreSafe(t *testing.T) {
	t.Parallel()
	p := start(t)
	nobody := p.as(t, "")
	for path, code := range map[string]int{"/healthz": 200, "/livez": 200, "/readyz": 200, "/version": 200,
		"/api": 403, "/apis": 403, "/api/v1/secrets": 403, "/metrics": 403, "/debug/pprof/": 403, "/openapi/v3": 403, "/logs/": 403, "/flagz": 403} {
		if got := nobody.do("GET", path, ""); got.code != code {
			t.Errorf("anonymous at %s: %v", path, got)
		}
	}
	for path, code := range map[string]int{"/api": 200, "/openapi/v3": 200, "/api/v1/secrets": 403, "/metrics": 403, "/debug/pprof/": 403} {
		if got := p.as(t, "bob").do("GET", path, ""); got.code != code {
			t.Errorf("a user at %s: %v", path, got)
		}
	}
	nobody.refused("GET", "/api/v1/secrets", "", 403, `secrets is forbidden: User "system:anonymous" cannot list resource "secrets" in API group "" at the cluster scope`)
	p.as(t, "wrong").refused("GET", "/version", "", 401, "Unauthorized")
	plainText, err := http.Get("http://" + strings.TrimPrefix(p.Address(), "https://") + "/version")
	if err != nil {
		t.Fatal(err)
	}
	plainText.Body.Close()
	if plainText.StatusCode != http.StatusBadRequest {
		t.Errorf("plain text: %s", plainText.Status)
	}
	if d := p.Options.Limits.RequestTimeout; d != time.Minute {
		t.Errorf("requests may last %v", d)
	}
}

// Where everything is allowed nobody comes without a name.
func TestAlwaysAllowKnowsEverybody(t *testing.T) {
	t.Parallel()
	p := start(t, "--authorization-mode", "AlwaysAllow", "--profiling=false")
	p.as(t, "").refused("GET", "/version", "", 401, "Unauthorized")
	if got := p.as(t, "bob").do("GET", "/api/v1/secrets", ""); got.code != 200 {
		t.Errorf("a user: %v", got)
	}
	if got := p.as(t, "root").do("GET", "/debug/pprof/", ""); got.code != 404 {
		t.Errorf("profiles that are turned off: %v", got)
	}
	closed := start(t, "--anonymous-auth=false")
	closed.as(t, "").refused("GET", "/version", "", 401, "Unauthorized")
}

// A right that is taken away, a token whose ServiceAccount is gone: both end at
// the next request.
func TestRevocationBitesAtOnce(t *testing.T) {
	t.Parallel()
	p := start(t)
	root, ann := p.as(t, "root"), p.as(t, "ann")
	grant(t, root, "ann", "reader", `[{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]`)
	if got := ann.do("GET", "/api/v1/pods", ""); got.code != 200 {
		t.Fatal(got)
	}
	if got := root.do("DELETE", rbacPath+"/clusterrolebindings/reader", ""); got.code != 200 {
		t.Fatal(got)
	}
	if got := ann.do("GET", "/api/v1/pods", ""); got.code != 403 {
		t.Errorf("after the binding: %v", got)
	}
	const accounts = "/api/v1/namespaces/default/serviceaccounts"
	root.must(accounts, `{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}`)
	var request authenticationv1.TokenRequest
	issued := root.must(accounts+"/robot/token", `{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}`)
	if err := json.Unmarshal(issued.body, &request); err != nil {
		t.Fatal(err)
	}
	if life := *request.Spec.ExpirationSeconds; life != 3600 {
		t.Errorf("a token lives %d s", life)
	}
	robot := p.as(t, request.Status.Token)
	if who := robot.who(); who.Username != "system:serviceaccount:default:robot" {
		t.Errorf("who: %+v", who)
	}
	if got := root.do("DELETE", accounts+"/robot", ""); got.code != 200 {
		t.Fatal(got)
	}
	robot.refused("GET", "/version", "", 401, "Unauthorized")
}

// A pod's token lives as long as was asked for where tokens are not extended, and
// a year where they are, as upstream has it by default.
func TestExtendedTokens(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		life int64
	}{{nil, 365 * 24 * 3600}, {[]string{"--service-account-extend-token-expiration=false"}, 3607}} {
		root := start(t, c.args...).as(t, "root")
		const of = "/api/v1/namespaces/default"
		root.must(of+"/serviceaccounts", "metadata: {name: robot}")
		root.must(of+"/pods", "metadata: {name: p}\nspec: {serviceAccountName: robot, containers: [{name: c, image: i}]}")
		issued := root.must(of+"/serviceaccounts/robot/token", "apiVersion: authentication.k8s.io/v1\nkind: TokenRequest\nspec: {expirationSeconds: 3607, boundObjectRef: {apiVersion: v1, kind: Pod, name: p}}")
		var request authenticationv1.TokenRequest
		if err := json.Unmarshal(issued.body, &request); err != nil {
			t.Fatal(err)
		}
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(request.Status.Token, ".")[1])
		if err != nil {
			t.Fatal(err)
		}
		var claims struct{ Exp, Iat int64 }
		if err := json.Unmarshal(payload, &claims); err != nil {
			t.Fatal(err)
		}
		if life := claims.Exp - claims.Iat; life != c.life {
			t.Errorf("%v: a token lives %d s, want %d", c.args, life, c.life)
		}
	}
}

// A connection of HTTP/2 serves on who is known; who is not gets one a request.
func TestConnectionsOfStrangers(t *testing.T) {
	t.Parallel()
	p := start(t)
	for token, reused := range map[string]bool{"root": true, "": false, "wrong": false} {
		a := p.as(t, token)
		transport := a.client.Transport.(*http.Transport)
		transport.ForceAttemptHTTP2 = true
		// The server's goodbye comes with the answer or right after it.
		waitUntil(t, fmt.Sprintf("%q: connections are reused: %v, want %v", token, !reused, reused), func() bool {
			var again atomic.Bool
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { again.Store(i.Reused) }})
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+"/version", nil)
			if err != nil {
				t.Fatal(err)
			}
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			for range 2 {
				res, err := a.client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.ProtoMajor != 2 {
					t.Fatal(res.Proto)
				}
			}
			return again.Load() == reused
		})
	}
}

// Others find the issuer's keys where they found the issuer, but not at a name
// that is not the server's.
func TestIssuerDiscovery(t *testing.T) {
	t.Parallel()
	p := start(t)
	root := p.as(t, "root")
	got := root.do("GET", "/.well-known/openid-configuration", "")
	if !strings.Contains(string(got.body), `"jwks_uri":"`+p.Address()+`/openid/v1/jwks"`) || !strings.Contains(string(got.body), `"RS256"`) {
		t.Errorf("discovery: %v", got)
	}
	if keys := root.do("GET", "/openid/v1/jwks", ""); !strings.Contains(string(keys.body), `"kty":"RSA"`) || strings.Contains(string(keys.body), `"d":`) {
		t.Errorf("keys: %v", keys)
	}
	lured := p.as(t, "root")
	lured.host = "evil.example:443"
	if got := lured.do("GET", "/.well-known/openid-configuration", ""); got.code != 200 || strings.Contains(string(got.body), "evil") {
		t.Errorf("asked by another name: %v", got)
	}
}

// What is not there is refused, not passed over.
func TestUnsupportedIsRefused(t *testing.T) {
	t.Parallel()
	kmsOne := strings.ReplaceAll(encryptionFile("secrets PROVIDER"), "PROVIDER", "kms: {name: old, endpoint: 'unix:///x', cachesize: 10}")
	for want, args := range map[string][]string{
		"ABAC is not supported":                       {"--authorization-mode", "ABAC"},
		"KMSv1 is deprecated":                         {"--encryption-provider-config", write(t, "enc.yaml", kmsOne)},
		"signing-endpoint is not supported":           {"--service-account-signing-endpoint", "/run/signer"},
		"mutually exclusive":                          {"--authentication-config", "x", "--oidc-issuer-url", "https://x", "--oidc-client-id", "y"},
		"must be specified together":                  {"--oidc-issuer-url", "https://x"},
		"can not be specified when":                   {"--authorization-config", "x", "--authorization-mode", "RBAC"},
		"config file not passed":                      {"--authorization-mode", "Webhook"},
		"no such file":                                {"--client-ca-file", "/nonexistent"},
		"--anonymous-auth flag cannot be set when":    {"--anonymous-auth=true", "--authentication-config", write(t, "a.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: true}\n")},
		`strict decoding error: unknown field "jwts"`: {"--authentication-config", write(t, "b.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwts: []\n")},
		"authorizers: Required value":                 {"--authorization-config", write(t, "c.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n")},
	} {
		if err := refuseStart(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}

// withCertificate returns who shows a client certificate of the cluster's authority.
func (p *Plane) withCertificate(t *testing.T, name string, groups ...string) *asker {
	t.Helper()
	pair, err := p.Keys.CA.Issue(pki.Leaf{CommonName: name, Organizations: groups, Client: true})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	a := p.as(t, "")
	a.tls().Certificates = []tls.Certificate{certificate}
	return a
}

// The certificates of upstream's components may do what their roles say, and
// nothing else.
func TestComponentsIdentities(t *testing.T) {
	t.Parallel()
	p := start(t)
	const lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
	for user, has := range map[string]struct{ may, mayNot []string }{
		"system:kube-scheduler": {
			may: []string{"GET /api/v1/pods", "GET /api/v1/nodes", "GET /apis/storage.k8s.io/v1/csinodes", "GET /apis/resource.k8s.io/v1/resourceslices",
				"DELETE /api/v1/namespaces/default/pods/none", "GET " + lease + "/kube-scheduler", "POST /apis/authorization.k8s.io/v1/subjectaccessreviews"},
			mayNot: []string{"GET /api/v1/secrets", "DELETE /api/v1/nodes/any", "DELETE " + lease + "/kube-controller-manager", "POST /api/v1/namespaces/default/pods",
				"GET /apis/rbac.authorization.k8s.io/v1/clusterroles", "GET /debug/pprof/"},
		},
		"system:kube-controller-manager": {
			may: []string{"GET /apis/apps/v1/deployments", "GET /api/v1/secrets", "GET " + lease + "/kube-controller-manager",
				"POST /api/v1/namespaces/kube-system/serviceaccounts", "POST /apis/authentication.k8s.io/v1/tokenreviews"},
			mayNot: []string{"DELETE /api/v1/nodes/any", "POST /api/v1/namespaces/default/pods", "POST /apis/rbac.authorization.k8s.io/v1/clusterroles",
				"POST " + "/apis/apps/v1/namespaces/default/deployments"},
		},
		"system:kube-proxy": {
			may:    []string{"GET /apis/discovery.k8s.io/v1/endpointslices", "GET /api/v1/services", "GET /api/v1/nodes"},
			mayNot: []string{"GET /api/v1/pods", "GET /api/v1/secrets", "DELETE /api/v1/nodes/any", "POST /api/v1/namespaces/default/services"},
		},
	} {
		a := p.withCertificate(t, user)
		for _, request := range has.may {
			method, path, _ := strings.Cut(request, " ")
			if got := a.do(method, path, ""); got.code == 401 || got.code == 403 {
				t.Errorf("%s: %s: %v", user, request, got)
			}
		}
		for _, request := range has.mayNot {
			method, path, _ := strings.Cut(request, " ")
			if got := a.do(method, path, ""); got.code != 403 {
				t.Errorf("%s: %s: %v", user, request, got)
			}
		}
	}
}

// A node's certificate reaches what its pods use, and writes about itself alone.
func TestNodesIdentity(t *testing.T) {
	t.Parallel()
	p := start(t)
	root, node := p.as(t, "root"), p.withCertificate(t, "system:node:n1", "system:nodes")
	const nodes, pods = "/api/v1/nodes", "/api/v1/namespaces/default/pods"
	root.must(secrets, secretOf("theirs"))
	root.must(secrets, secretOf("mine"))
	root.must("/api/v1/namespaces/default/serviceaccounts", "metadata: {name: sa}")
	node.must(nodes, "metadata: {name: n1}")
	node.refused("POST", nodes, "metadata: {name: n2}", 403, `nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"`)
	node.refused("GET", secrets+"/mine", "", 403, `secrets "mine" is forbidden: User "system:node:n1" cannot get resource "secrets" in API group "" in the namespace "default": node: no relationship found between node 'n1' and this object`)
	root.must(pods, `
metadata: {name: p}
spec: {nodeName: n1, serviceAccountName: sa, containers: [{name: c, image: i}], volumes: [{name: s, secret: {secretName: mine}}]}`)
	waitUntil(t, "a pod's Secret stays closed to its node", func() bool { return node.do("GET", secrets+"/mine", "").code == 200 })
	node.refused("GET", secrets+"/theirs", "", 403, `secrets "theirs" is forbidden: User "system:node:n1" cannot get resource "secrets" in API group "" in the namespace "default": node: no relationship found between node 'n1' and this object`)
	node.refused("POST", "/api/v1/namespaces/default/serviceaccounts/sa/token", "apiVersion: authentication.k8s.io/v1\nkind: TokenRequest\nspec: {audiences: []}",
		403, `serviceaccounts "sa" is forbidden: node requested token not bound to a pod`)
	const requests = "/apis/certificates.k8s.io/v1/podcertificaterequests"
	node.refused("GET", requests+"?fieldSelector=spec.nodeName=n2", "", 403, `podcertificaterequests.certificates.k8s.io is forbidden: User "system:node:n1" cannot list resource "podcertificaterequests" in API group "certificates.k8s.io" at the cluster scope: node: can only list/watch podcertificaterequests with nodeName field selector`)
	for _, path := range []string{pods + "/p", nodes + "/n1", "/api/v1/pods?fieldSelector=spec.nodeName=n1", "/apis/node.k8s.io/v1/runtimeclasses", requests + "?fieldSelector=spec.nodeName=n1"} {
		if got := node.do("GET", path, ""); got.code != 200 {
			t.Errorf("%s: %v", path, got)
		}
	}
	for _, path := range []string{secrets, "/api/v1/pods", "/api/v1/pods?fieldSelector=spec.nodeName=n2", "/apis/rbac.authorization.k8s.io/v1/clusterroles", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"} {
		if got := node.do("GET", path, ""); got.code != 403 {
			t.Errorf("%s: %v", path, got)
		}
	}
	merge := p.withCertificate(t, "system:node:n1", "system:nodes")
	merge.header.Set("Content-Type", "application/merge-patch+json")
	merge.refused("PATCH", nodes+"/n1", `{"metadata":{"labels":{"node-restriction.kubernetes.io/a":"b"}}}`, 403,
		`nodes "n1" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/a`)
	if got := node.do("DELETE", nodes+"/n1", ""); got.code != 403 {
		t.Errorf("a node deletes itself: %v", got)
	}
}

// A node gets tokens for the audiences that its pods' volumes name; what cannot be
// found out about them is told.
func TestAudiencesOfNodes(t *testing.T) {
	t.Parallel()
	p := start(t)
	root, node := p.as(t, "root"), p.withCertificate(t, "system:node:n1", "system:nodes")
	const of = "/api/v1/namespaces/default"
	root.must(of+"/serviceaccounts", "metadata: {name: sa}")
	root.must("/apis/storage.k8s.io/v1/csidrivers", "apiVersion: storage.k8s.io/v1\nkind: CSIDriver\nmetadata: {name: known.example}\nspec: {tokenRequests: [{audience: driver}]}")
	var pod corev1.Pod
	made := root.must(of+"/pods", `
metadata: {name: p}
spec:
  nodeName: n1
  serviceAccountName: sa
  automountServiceAccountToken: false
  containers: [{name: c, image: i}]
  volumes:
  - {name: claimed, persistentVolumeClaim: {claimName: none}}
  - {name: token, projected: {sources: [{serviceAccountToken: {path: t, audience: vault}}]}}
  - {name: driven, csi: {driver: known.example}}
  - {name: lost, csi: {driver: unknown.example}}`)
	if err := json.Unmarshal(made.body, &pod); err != nil {
		t.Fatal(err)
	}
	request := func(audience string) string {
		return "apiVersion: authentication.k8s.io/v1\nkind: TokenRequest\nspec: {audiences: [" + audience + "], boundObjectRef: {apiVersion: v1, kind: Pod, name: p, uid: " + string(pod.UID) + "}}"
	}
	for _, audience := range []string{"vault", "driver"} {
		waitUntil(t, "a node gets no token for "+audience, func() bool { return node.do("POST", of+"/serviceaccounts/sa/token", request(audience)).code == 201 })
	}
	node.refused("POST", of+"/serviceaccounts/sa/token", request("else"), 403,
		`serviceaccounts "sa" is forbidden: error validating audience "else": [persistentvolumeclaim "none" not found, csidriver.storage.k8s.io "unknown.example" not found]`)
}

// lockedBuffer is a log that several goroutines write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// Neither tokens nor Secrets are in the log, however much it tells.
func TestSecretsAreNotLogged(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	p := startWith(t, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	root := p.as(t, "root")
	root.must(secrets, secretOf("a"))
	p.as(t, "a-token-nobody-knows").do("GET", "/api", "")
	forged := "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdC5zdmMuY2x1c3Rlci5sb2NhbCJ9."
	p.as(t, forged).refused("GET", "/api", "", 401, "Unauthorized")
	root.do("POST", "/apis/authentication.k8s.io/v1/tokenreviews", `{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "another-token"}}`)
	log.mu.Lock()
	defer log.mu.Unlock()
	if log.b.Len() == 0 {
		t.Error("nothing is logged at all")
	}
	for _, secret := range []string{"a-token-nobody-knows", forged, "another-token", "open sesame", "b3BlbiBzZXNhbWU"} {
		if strings.Contains(log.b.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}
