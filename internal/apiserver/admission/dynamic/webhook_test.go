// SPDX-License-Identifier: Apache-2.0

package dynamic_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"kaji/kajitest"
)

// bench is a cluster reached over HTTPS, with webhooks that take effect.
type bench struct {
	t *testing.T
	*kubernetes.Clientset
	cluster *kajitest.Cluster
	warned  *warnings
}

type warnings struct {
	mu    sync.Mutex
	texts []string
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.texts = nil }()
	return w.texts
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, cluster: kajitest.Start(t), warned: &warnings{}}
	config := b.cluster.RESTConfig()
	config.WarningHandler = b.warned
	b.Clientset = kubernetes.NewForConfigOrDie(config)
	return b
}

// validating installs webhooks of one configuration and waits until they are
// called: the last one refuses what is called "probe".
func (b *bench) validating(hooks ...admissionregistrationv1.ValidatingWebhook) {
	b.t.Helper()
	sentinel := hook(b.t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Allowed: r.Name != "probe", Result: &metav1.Status{Message: "installed"}}
	})
	last := b.hook("sentinel.example.com", clientConfig(sentinel))
	last.SideEffects = new(admissionregistrationv1.SideEffectClassNone)
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Webhooks: append(hooks, last)}
	if _, err := b.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(b.t.Context(), configuration, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
	probe(b.t, b.cluster, "probe", says("installed"))
	b.warned.take()
}

func (b *bench) hook(name string, at admissionregistrationv1.WebhookClientConfig) admissionregistrationv1.ValidatingWebhook {
	return admissionregistrationv1.ValidatingWebhook{
		Name: name, ClientConfig: at, Rules: rules(), FailurePolicy: new(admissionregistrationv1.Fail),
		SideEffects: new(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: new(int32(10)),
	}
}

func (b *bench) create(cm *corev1.ConfigMap, dry ...string) error {
	_, err := b.CoreV1().ConfigMaps("default").Create(b.t.Context(), cm, metav1.CreateOptions{DryRun: dry})
	return err
}

func refuseAll(why string) func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Allowed: r.Name == "probe", Result: &metav1.Status{Message: why}}
	}
}

// Selectors and match conditions decide what a webhook is asked about.
func TestWebhookSelection(t *testing.T) {
	b := newBench(t)
	byObject := b.hook("object.example.com", clientConfig(hook(t, refuseAll("object"))))
	byObject.ObjectSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pick": "object"}}
	byCondition := b.hook("condition.example.com", clientConfig(hook(t, refuseAll("condition"))))
	byCondition.MatchConditions = []admissionregistrationv1.MatchCondition{{Name: "c", Expression: "has(object.data) && 'pick' in object.data"}}
	elsewhere := b.hook("namespace.example.com", clientConfig(hook(t, refuseAll("namespace"))))
	elsewhere.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": "other"}}
	secrets := b.hook("rules.example.com", clientConfig(hook(t, refuseAll("rules"))))
	secrets.Rules[0].Resources = []string{"secrets"}
	b.validating(byObject, byCondition, elsewhere, secrets)
	if err := b.create(configMap("plain")); err != nil {
		t.Error(err)
	}
	picked := configMap("picked")
	picked.Labels = map[string]string{"pick": "object"}
	if err := b.create(picked); err == nil || err.Error() != `admission webhook "object.example.com" denied the request: object` {
		t.Errorf("got %v", err)
	}
	conditioned := configMap("conditioned")
	conditioned.Data = map[string]string{"pick": ""}
	if err := b.create(conditioned); err == nil || err.Error() != `admission webhook "condition.example.com" denied the request: condition` {
		t.Errorf("got %v", err)
	}
}

// A webhook that has side effects is not asked when a request is only tried.
func TestWebhookSideEffects(t *testing.T) {
	b := newBench(t)
	// Only Unknown and Some have side effects, and neither is valid in v1 but
	// for NoneOnDryRun: there the webhook is asked, and told.
	told := make(chan bool, 8)
	h := b.hook("dry.example.com", clientConfig(hook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if r.Name != "probe" {
			told <- r.DryRun != nil && *r.DryRun
		}
		return &admissionv1.AdmissionResponse{Allowed: true, Warnings: []string{"careful"}}
	})))
	h.SideEffects = new(admissionregistrationv1.SideEffectClassNoneOnDryRun)
	b.validating(h)
	for _, dry := range []bool{true, false} {
		var options []string
		if dry {
			options = []string{metav1.DryRunAll}
		}
		if err := b.create(configMap("a"), options...); err != nil {
			t.Fatal(err)
		}
		if got := <-told; got != dry {
			t.Errorf("told dry run %v, want %v", got, dry)
		}
		if got := b.warned.take(); !slices.Equal(got, []string{"careful"}) {
			t.Errorf("warned of %q", got)
		}
	}
}

// What a webhook does wrong is said clearly, and is over in time.
func TestWebhookMisbehaves(t *testing.T) {
	for name, test := range map[string]struct {
		answer  http.HandlerFunc
		seconds int32
		want    string
	}{
		"huge": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"`)
			for junk := bytes.Repeat([]byte("x"), 1<<20); ; {
				if _, err := w.Write(junk); err != nil {
					return
				}
			}
		}, 30, "the webhook's answer is longer than 16777216 bytes"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:9/", http.StatusTemporaryRedirect)
		}, 10, "the webhook answered with a redirect, which is not followed"},
		"slow": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then is the caller's going noticed
			<-r.Context().Done()
		}, 1, "context deadline exceeded"},
		"wrong uid": {func(w http.ResponseWriter, _ *http.Request) { respond(w, `{"uid":"wrong","allowed":true}`) }, 10, `expected response.uid`},
		"patch":     {patching(`[{"op":"remove","path":"/nothing"}]`), 10, "Unable to remove nonexistent key"},
		"no patch":  {patching(`{"not":"a list"}`), 10, "json: cannot unmarshal"},
		"status":    {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTeapot) }, 10, "failed to call webhook"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			server := httptest.NewTLSServer(test.answer)
			t.Cleanup(server.Close)
			configuration := mutating(server, admissionregistrationv1.Fail)
			configuration.Webhooks[0].TimeoutSeconds = &test.seconds
			configurations := b.AdmissionregistrationV1().MutatingWebhookConfigurations()
			if _, err := configurations.Create(t.Context(), configuration, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			probe(t, b.cluster, "a", says(test.want))
			// Other kinds do not notice, and the configuration can be removed.
			if _, err := b.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{}); err != nil {
				t.Error(err)
			}
			if err := configurations.Delete(t.Context(), "m", metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
			probe(t, b.cluster, "a", func(_ *corev1.ConfigMap, err error) bool { return err == nil })
		})
	}
}

// patching answers every review with a patch.
func patching(patch string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, Patch: []byte(patch), PatchType: new(admissionv1.PatchTypeJSONPatch)}
		_ = json.NewEncoder(w).Encode(review)
	}
}

// Webhooks are not asked about webhook configurations: a webhook for
// everything that is dead does not keep anybody from removing it.
func TestWebhookLocksNobodyOut(t *testing.T) {
	b := newBench(t)
	dead := b.hook("dead.example.com", admissionregistrationv1.WebhookClientConfig{URL: new("https://127.0.0.1:9/")})
	dead.Rules = []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.OperationAll},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{"*"}, APIVersions: []string{"*"}, Resources: []string{"*/*"}},
	}}
	configurations := b.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	made, err := configurations.Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "dead"}, Webhooks: []admissionregistrationv1.ValidatingWebhook{dead}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	probe(t, b.cluster, "a", says("failed calling webhook"))
	made.Labels = map[string]string{"a": "b"}
	if _, err := configurations.Update(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	}
	if err := configurations.Delete(t.Context(), "dead", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	probe(t, b.cluster, "a", func(_ *corev1.ConfigMap, err error) bool { return err == nil })
}

// A webhook that asks for it is called again when a later one changed the
// object, once.
func TestWebhookReinvocation(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	seen := map[string][]string{}
	see := func(who string, patch func(cm *corev1.ConfigMap) string) admissionregistrationv1.WebhookClientConfig {
		return clientConfig(hook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			var cm corev1.ConfigMap
			if err := json.Unmarshal(r.Object.Raw, &cm); err != nil {
				return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: err.Error()}}
			}
			mu.Lock()
			defer mu.Unlock()
			seen[cm.Name] = append(seen[cm.Name], fmt.Sprintf("%s %d", who, len(cm.Data)))
			answer := &admissionv1.AdmissionResponse{Allowed: true}
			if p := patch(&cm); p != "" {
				answer.Patch, answer.PatchType = []byte(p), new(admissionv1.PatchTypeJSONPatch)
			}
			return answer
		}))
	}
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "m"}}
	for name, at := range map[string]admissionregistrationv1.WebhookClientConfig{
		"a.example.com": see("first", func(*corev1.ConfigMap) string { return "" }),
		"b.example.com": see("second", func(cm *corev1.ConfigMap) string {
			if cm.Data != nil {
				return ""
			}
			return `[{"op":"add","path":"/data","value":{"by":"second"}}]`
		}),
	} {
		configuration.Webhooks = append(configuration.Webhooks, admissionregistrationv1.MutatingWebhook{
			Name: name, ClientConfig: at, Rules: rules(), SideEffects: new(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"}, ReinvocationPolicy: new(admissionregistrationv1.IfNeededReinvocationPolicy),
		})
	}
	slices.SortFunc(configuration.Webhooks, func(a, b admissionregistrationv1.MutatingWebhook) int { return strings.Compare(a.Name, b.Name) })
	if _, err := b.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), configuration, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	probe(t, b.cluster, "probe", func(cm *corev1.ConfigMap, err error) bool { return err == nil && cm.Data["by"] == "second" })
	if err := b.create(configMap("x")); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"first 0", "second 0", "first 1"}; !slices.Equal(seen["x"], want) {
		t.Errorf("called %q, want %q", seen["x"], want)
	}
}

// A policy's expression that is too expensive, or does not compile, is refused
// where the policy is written; one that fails at run time follows its policy.
func TestPolicyFailures(t *testing.T) {
	b := newBench(t)
	policies := b.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	var policy admissionregistrationv1.ValidatingAdmissionPolicy
	const body = `
metadata: {name: p}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]}
  validations: [{expression: "%s"}]
`
	parse(t, fmt.Sprintf(body, "object.nothing ++ 1"), &policy)
	if _, err := policies.Create(t.Context(), &policy, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "compilation failed") {
		t.Errorf("got %v", err)
	}
	parse(t, fmt.Sprintf(body, "object.data.missing == 'x'"), &policy)
	if _, err := policies.Create(t.Context(), &policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var binding admissionregistrationv1.ValidatingAdmissionPolicyBinding
	parse(t, "metadata: {name: p}\nspec: {policyName: p, validationActions: [Deny]}", &binding)
	if _, err := b.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(t.Context(), &binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	probe(t, b.cluster, "a", says("ValidatingAdmissionPolicy 'p' with binding 'p' denied request: expression 'object.data.missing == 'x'' resulted in error: no such key: data"))
}
