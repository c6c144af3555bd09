// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// hook is a small server that answers reviews, and the kubeconfig to it.
type hook struct {
	calls  atomic.Int32
	server *httptest.Server
	config string
}

func newHook[T any](t *testing.T, answer func(*T)) *hook {
	t.Helper()
	h := &hook{}
	h.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.calls.Add(1)
		var review T
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(&review)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(h.server.Close)
	h.config = kubeconfigOf(t, h.server)
	return h
}

// kubeconfigOf names a server and trusts it.
func kubeconfigOf(t *testing.T, s *httptest.Server) string {
	t.Helper()
	ca := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	return write(t, "kubeconfig", `apiVersion: v1
kind: Config
clusters: [{name: hook, cluster: {server: "`+s.URL+`", certificate-authority: "`+ca+`"}}]
users: [{name: me, user: {}}]
contexts: [{name: c, context: {cluster: hook, user: me}}]
current-context: c
`)
}

// A webhook knows users that nobody else does; its answers are kept, and when it
// is gone only its own users are.
func TestTokenWebhook(t *testing.T) {
	t.Parallel()
	h := newHook(t, func(r *authenticationv1.TokenReview) {
		r.Status.Authenticated = r.Spec.Token == "hooked" || r.Spec.Token == "other-audience"
		r.Status.User = authenticationv1.UserInfo{Username: "zoe", Groups: []string{"ops"}}
		r.Status.Audiences = r.Spec.Audiences
		if r.Spec.Token == "other-audience" {
			r.Status.Audiences = []string{"vault"}
		}
	})
	p := start(t, "--authentication-token-webhook-config-file", h.config, "--authentication-token-webhook-version", "v1")
	if who := p.as(t, "hooked").who(); who.Username != "zoe" || strings.Join(who.Groups, " ") != "ops system:authenticated" {
		t.Errorf("who: %+v", who)
	}
	before := h.calls.Load()
	p.as(t, "hooked").who()
	if after := h.calls.Load(); after != before {
		t.Error("the webhook is asked again for a token it has just judged")
	}
	p.as(t, "unknown").refused("GET", "/version", "", 401, "Unauthorized")
	p.as(t, "other-audience").refused("GET", "/version", "", 401, "Unauthorized")
	h.server.Close()
	p.as(t, "unheard-of").refused("GET", "/version", "", 401, "Unauthorized")
	if got := p.as(t, "root").do("GET", "/version", ""); got.code != 200 {
		t.Errorf("others while the webhook is down: %v", got)
	}
}

// slow is a server that answers nothing before it is let go, and then as h does.
func slow(t *testing.T, h *hook) (config string, release func()) {
	t.Helper()
	hold := make(chan struct{})
	release = sync.OnceFunc(func() { close(hold) })
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // else the server does not see that the client goes
		if err != nil {
			return
		}
		select {
		case <-hold:
			r.Body = io.NopCloser(bytes.NewReader(body))
			h.server.Config.Handler.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(release)
	return kubeconfigOf(t, s), release
}

// A slow webhook holds up its own tokens and nobody else.
func TestTokenWebhookIsSlow(t *testing.T) {
	t.Parallel()
	h := newHook(t, func(r *authenticationv1.TokenReview) {
		r.Status.Authenticated, r.Status.User, r.Status.Audiences = true, authenticationv1.UserInfo{Username: "zoe"}, r.Spec.Audiences
	})
	config, release := slow(t, h)
	p := start(t, "--authentication-token-webhook-config-file", config, "--authentication-token-webhook-version", "v1")
	const waiting = 20
	codes := make(chan int, waiting)
	for i := range waiting {
		a := p.as(t, fmt.Sprintf("unheard-of-%d", i))
		go func() { codes <- a.do("GET", "/version", "").code }()
	}
	for range 50 {
		if got := p.as(t, "root").do("GET", "/version", ""); got.code != 200 {
			t.Fatal(got)
		}
	}
	if n := len(codes); n != 0 {
		t.Errorf("%d requests were answered before their tokens were judged", n)
	}
	release()
	for range waiting {
		if code := <-codes; code != 200 {
			t.Errorf("a token that was judged in the end: %d", code)
		}
	}
}

const authorizers = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: guard
  webhook:
    timeout: 3s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: POLICY
    authorizedTTL: 0s
    unauthorizedTTL: 0s
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: "FILE"}
    matchConditions:
    - expression: 'has(request.resourceAttributes) && request.resourceAttributes.namespace == "guarded"'
- {type: Node, name: node}
- {type: RBAC, name: rbac}
`

// Authorizers are asked in the file's order, a webhook only where its
// conditions match; a changed file takes effect, a broken one does not.
func TestAuthorizationConfiguration(t *testing.T) {
	t.Parallel()
	h := newHook(t, func(r *authorizationv1.SubjectAccessReview) {
		r.Status.Allowed = r.Spec.User == "ann"
		r.Status.Denied = r.Spec.User == "bob"
		r.Status.Reason = "the guard says so"
	})
	text := strings.NewReplacer("FILE", h.config, "POLICY", "Deny").Replace(authorizers)
	file := write(t, "authz.yaml", text)
	p := start(t, "--authorization-config", file)
	grant(t, p.as(t, "root"), "bob", "reader", `[{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]`)
	const guarded, open = "/api/v1/namespaces/guarded/pods", "/api/v1/namespaces/default/pods"
	if got := p.as(t, "ann").do("GET", guarded, ""); got.code != 200 {
		t.Errorf("allowed by the webhook: %v", got)
	}
	p.as(t, "bob").refused("GET", guarded, "", 403, `pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "guarded": the guard says so`)
	before := h.calls.Load()
	if got := p.as(t, "bob").do("GET", open, ""); got.code != 200 || h.calls.Load() != before {
		t.Errorf("what the conditions leave out: %v, %d calls", got, h.calls.Load()-before)
	}
	rewrite(t, file, strings.Replace(text, "subjectAccessReviewVersion: v1\n    match", "subjectAccessReviewVersion: v7\n    match", 1))
	metric := func() string { return string(p.as(t, "root").do("GET", "/metrics", "").body) }
	waitUntil(t, "a broken file is not counted", func() bool { return strings.Contains(metric(), `status="failure"} 1`) })
	p.as(t, "bob").refused("GET", guarded, "", 403, `pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "guarded": the guard says so`)
	rewrite(t, file, text[:strings.Index(text, "- type: Webhook")]+text[strings.Index(text, "- {type: Node"):])
	waitUntil(t, "a changed file is not taken over", func() bool { return p.as(t, "bob").do("GET", guarded, "").code == 200 })
	if !strings.Contains(metric(), `apiserver_authorization_decisions_total{decision="denied",name="guard",type="Webhook"}`) {
		t.Error("decisions are not counted")
	}
}

// A webhook that is gone refuses or is passed over, as the file says.
func TestAuthorizationWebhookIsDown(t *testing.T) {
	t.Parallel()
	h := newHook(t, func(*authorizationv1.SubjectAccessReview) {})
	h.server.Close()
	for policy, code := range map[string]int{"Deny": 500, "NoOpinion": 200} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			p := start(t, "--authorization-config", write(t, "authz.yaml", strings.NewReplacer("FILE", h.config, "POLICY", policy).Replace(authorizers)))
			grant(t, p.as(t, "root"), "bob", "reader", `[{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]`)
			if got := p.as(t, "bob").do("GET", "/api/v1/namespaces/guarded/pods", ""); got.code != code {
				t.Errorf("%v", got)
			}
		})
	}
}

// One that does not answer is one that is gone, after the time that the file says.
func TestAuthorizationWebhookIsSlow(t *testing.T) {
	t.Parallel()
	config, _ := slow(t, newHook(t, func(*authorizationv1.SubjectAccessReview) {}))
	for policy, code := range map[string]int{"Deny": 500, "NoOpinion": 200} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			text := strings.NewReplacer("FILE", config, "POLICY", policy, "timeout: 3s", "timeout: 200ms").Replace(authorizers)
			p := start(t, "--authorization-config", write(t, "authz.yaml", text))
			grant(t, p.as(t, "root"), "bob", "reader", `[{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]`)
			if got := p.as(t, "bob").do("GET", "/api/v1/namespaces/guarded/pods", ""); got.code != code {
				t.Errorf("%v", got)
			}
		})
	}
}
