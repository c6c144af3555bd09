// SPDX-License-Identifier: Apache-2.0

package dynamic_test

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"kaji/internal/client"
	"kaji/kajitest"
)

var configMaps = client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("configmaps"), Namespace: "default"}

func registration(resource string) client.Resource {
	return client.Resource{GroupVersionResource: admissionregistrationv1.SchemeGroupVersion.WithResource(resource)}
}

// hook serves answers to reviews over TLS.
func hook(t *testing.T, answer func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse) *httptest.Server {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		response := answer(review.Request)
		if response.UID == "" {
			response.UID = review.Request.UID
		}
		review.Response = response
		_ = json.NewEncoder(w).Encode(review)
	}))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func clientConfig(server *httptest.Server) admissionregistrationv1.WebhookClientConfig {
	return admissionregistrationv1.WebhookClientConfig{
		URL:      ptr.To(server.URL + "/review"),
		CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}
}

func rules() []admissionregistrationv1.RuleWithOperations {
	return []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
	}}
}

func create(t *testing.T, c *kajitest.Cluster, r client.Resource, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	t.Helper()
	return c.Client().Create(t.Context(), r, "", obj, opts)
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
}

// probe tries to create an object, dry, until the answer says what is wanted:
// configurations take effect shortly after they are written.
func probe(t *testing.T, c *kajitest.Cluster, name string, want func(*corev1.ConfigMap, error) bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(60 * time.Second); ; <-tick.C {
		obj, err := create(t, c, configMaps, configMap(name), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		cm, _ := obj.(*corev1.ConfigMap)
		if want(cm, err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: got %v, error %v", name, obj, err)
		}
	}
}

func says(text string) func(*corev1.ConfigMap, error) bool {
	return func(_ *corev1.ConfigMap, err error) bool { return err != nil && strings.Contains(err.Error(), text) }
}

func mutating(server *httptest.Server, policy admissionregistrationv1.FailurePolicyType) *admissionregistrationv1.MutatingWebhookConfiguration {
	return &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "m"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "m.example.com", ClientConfig: clientConfig(server), Rules: rules(), FailurePolicy: &policy,
			SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: ptr.To[int32](1),
		}},
	}
}

// A webhook sees the object as the request's version and patches it.
func TestMutatingWebhook(t *testing.T) {
	c := kajitest.Start(t)
	server := hook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		var cm corev1.ConfigMap
		if err := json.Unmarshal(r.Object.Raw, &cm); err != nil || cm.Kind != "ConfigMap" || r.Namespace != "default" {
			return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: fmt.Sprintf("got %s: %v", r.Object.Raw, err)}}
		}
		return &admissionv1.AdmissionResponse{
			Allowed: true, PatchType: ptr.To(admissionv1.PatchTypeJSONPatch),
			Patch: []byte(`[{"op":"add","path":"/data","value":{"by":"hook"}}]`),
		}
	})
	if _, err := create(t, c, registration("mutatingwebhookconfigurations"), mutating(server, admissionregistrationv1.Fail), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	probe(t, c, "a", func(cm *corev1.ConfigMap, err error) bool { return err == nil && cm.Data["by"] == "hook" })
}

// Whatever a webhook answers, the request ends with a clear error or, where
// failures are ignored, as if there were none.
func TestBadWebhooks(t *testing.T) {
	answers := map[string]func(w http.ResponseWriter, r *http.Request){
		"expected response.uid": func(w http.ResponseWriter, r *http.Request) { respond(w, `{"uid":"wrong","allowed":true}`) },
		"failed to call webhook": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:9/", http.StatusFound)
		},
		"unexpected EOF":          func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, `{"kind"`) },
		"the server rejected our": func(w http.ResponseWriter, r *http.Request) { http.Error(w, "", http.StatusUnprocessableEntity) },
	}
	for text, answer := range answers {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			c := kajitest.Start(t)
			server := httptest.NewTLSServer(http.HandlerFunc(answer))
			t.Cleanup(server.Close)
			config := mutating(server, admissionregistrationv1.Fail)
			created, err := create(t, c, registration("mutatingwebhookconfigurations"), config, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			probe(t, c, "a", says("failed calling webhook"))
			ignoring := created.(*admissionregistrationv1.MutatingWebhookConfiguration).DeepCopy()
			ignoring.Webhooks[0].FailurePolicy = ptr.To(admissionregistrationv1.Ignore)
			if _, err := c.Client().Update(t.Context(), registration("mutatingwebhookconfigurations"), "m", ignoring, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			probe(t, c, "a", func(_ *corev1.ConfigMap, err error) bool { return err == nil })
		})
	}
}

func respond(w io.Writer, response string) {
	_, _ = fmt.Fprintf(w, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":%s}`, response)
}

// A validating policy refuses with its own message, and with its parameter.
func TestValidatingPolicy(t *testing.T) {
	c := kajitest.Start(t)
	parameter := configMap("limits")
	parameter.Data = map[string]string{"max": "3"}
	if _, err := create(t, c, configMaps, parameter, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var policy admissionregistrationv1.ValidatingAdmissionPolicy
	var binding admissionregistrationv1.ValidatingAdmissionPolicyBinding
	parse(t, `
metadata: {name: short}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]}
  validations: [{expression: "object.metadata.name.size() <= int(params.data.max)", messageExpression: "'longer than ' + params.data.max"}]
`, &policy)
	parse(t, `
metadata: {name: short}
spec: {policyName: short, validationActions: [Deny], paramRef: {name: limits, namespace: default, parameterNotFoundAction: Deny}}
`, &binding)
	if _, err := create(t, c, registration("validatingadmissionpolicies"), &policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, c, registration("validatingadmissionpolicybindings"), &binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	probe(t, c, "long", says("ValidatingAdmissionPolicy 'short' with binding 'short' denied request: longer than 3"))
	probe(t, c, "abc", func(_ *corev1.ConfigMap, err error) bool { return err == nil })
}

func parse(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}
