// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver"
	"kaji/internal/apiserver/review"
	"kaji/internal/store/memory"
)

// TestRemovedVersions writes an object in a version that Kubernetes has removed
// and reads it in the one that took its place, and back.
func TestRemovedVersions(t *testing.T) {
	s := memory.New()
	defer s.Close()
	yes := authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionAllow, "", nil
	})
	server, err := apiserver.New(apiserver.Config{Store: s, Kinds: catalog.All(), Authorizer: yes, Virtual: review.Config{Authorizer: yes}.Virtual(),
		ServiceRanges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	defer func() { cancel(); <-done }()
	select {
	case <-server.Booted():
	case <-time.After(60 * time.Second):
		t.Fatal("the server never started")
	}
	do := func(method, path, contentType, body string, want ...string) http.Header {
		t.Helper()
		r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		server.Handler().ServeHTTP(w, r)
		for _, text := range want {
			if w.Code >= 300 || !strings.Contains(w.Body.String(), text) {
				t.Fatalf("%s %s: %d %s without %s", method, path, w.Code, w.Body, text)
			}
		}
		return w.Header()
	}
	const ingress = `{"apiVersion":"extensions/v1beta1","kind":"Ingress","metadata":{"name":"i"},"spec":{"backend":{"serviceName":"s","servicePort":80}}}`
	const old, now = "/apis/extensions/v1beta1/namespaces/default/ingresses", "/apis/networking.k8s.io/v1/namespaces/default/ingresses"
	header := do("POST", old, "application/json", ingress, `"serviceName":"s"`, `"f:backend"`)
	if got := header.Get("Warning"); !strings.Contains(got, "use networking.k8s.io/v1 Ingress") {
		t.Errorf("warning %q", got)
	}
	do("GET", now+"/i", "", "", `"defaultBackend":{"service":{"name":"s","port":{"number":80}}}`)
	do("PATCH", now+"/i", "application/merge-patch+json", `{"spec":{"defaultBackend":{"service":{"name":"t"}}}}`, `"name":"t"`)
	do("GET", old+"/i", "", "", `"serviceName":"t"`)
	do("PATCH", old+"/i?fieldManager=m&force=true", "application/apply-patch+yaml", ingress, `"serviceName":"s"`)
	do("POST", "/apis/policy/v1beta1/podsecuritypolicies", "application/json",
		`{"apiVersion":"policy/v1beta1","kind":"PodSecurityPolicy","metadata":{"name":"p"},"spec":{"privileged":true}}`, `"privileged":true`)
	do("GET", "/apis/extensions/v1beta1/podsecuritypolicies", "", "", `"name":"p"`)
	do("PATCH", "/apis/policy/v1beta1/podsecuritypolicies/q?fieldManager=m", "application/apply-patch+yaml",
		`{"apiVersion":"policy/v1beta1","kind":"PodSecurityPolicy","metadata":{"name":"q"},"spec":{"privileged":true}}`, `"f:privileged"`)

	const scaler = `{"apiVersion":"autoscaling/v2beta1","kind":"HorizontalPodAutoscaler","metadata":{"name":"h"},"spec":{"maxReplicas":3,` +
		`"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"d"},"metrics":[{"type":"Resource","resource":{"name":"cpu","targetAverageUtilization":60}}]}}`
	const scalers = "/namespaces/default/horizontalpodautoscalers"
	do("POST", "/apis/autoscaling/v2beta1"+scalers, "application/json", scaler, `"targetAverageUtilization":60`, `"currentMetrics":null`, `"f:metrics"`)
	do("PATCH", "/apis/autoscaling/v2"+scalers+"/h", "application/merge-patch+json", `{"spec":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":7}}}}`,
		`"averageUtilization":60`)
	do("GET", "/apis/autoscaling/v2beta1"+scalers+"/h", "", "", `autoscaling.alpha.kubernetes.io/behavior`, `\"StabilizationWindowSeconds\":7`)
	do("PATCH", "/apis/autoscaling/v2beta1"+scalers+"/h?fieldManager=m&force=true", "application/apply-patch+yaml", scaler, `"targetAverageUtilization":60`)
	do("GET", "/apis/autoscaling/v2"+scalers+"/h", "", "", `"stabilizationWindowSeconds":7`)

	do("POST", "/apis/authorization.k8s.io/v1beta1/subjectaccessreviews", "application/json",
		`{"apiVersion":"authorization.k8s.io/v1beta1","kind":"SubjectAccessReview","spec":{"group":["g"],"nonResourceAttributes":{"path":"/x","verb":"get"}}}`,
		`"group":["g"]`, `"allowed":true`)
}
