// SPDX-License-Identifier: Apache-2.0

package podsecurity_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"kaji/internal/apiserver"
	"kaji/internal/apiserver/admission/podsecurity"
	"kaji/kajitest"
)

// warnings keeps what the server warned of.
type warnings struct {
	mu    sync.Mutex
	texts []string
}

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

func start(t *testing.T, configuration string) (*kubernetes.Clientset, *warnings) {
	t.Helper()
	cluster := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) {
		c.AdmissionConfiguration = map[string][]byte{podsecurity.Name: []byte(configuration)}
	}))
	w := &warnings{}
	config := cluster.RESTConfig()
	config.WarningHandler = w
	return kubernetes.NewForConfigOrDie(config), w
}

func pod(name string, hostNetwork bool) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{HostNetwork: hostNetwork, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

func label(t *testing.T, c *kubernetes.Clientset, labels string) error {
	t.Helper()
	_, err := c.CoreV1().Namespaces().Patch(t.Context(), "default", types.MergePatchType, []byte(`{"metadata":{"labels":`+labels+`}}`), metav1.PatchOptions{})
	return err
}

const (
	onBaseline  = `would violate PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`
	hostRefused = `pods "b" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`
)

// A namespace's labels refuse and warn; labelling it warns of what is there.
func TestLabels(t *testing.T) {
	c, warned := start(t, "")
	pods := c.CoreV1().Pods("default")
	if _, err := pods.Create(t.Context(), pod("a", true), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := label(t, c, `{"pod-security.kubernetes.io/enforce":"baseline"}`); err != nil {
		t.Fatal(err)
	}
	want := []string{`existing pods in namespace "default" violate the new PodSecurity enforce level "baseline:latest"`, "a: host namespaces"}
	if got := warned.take(); !slices.Equal(got, want) {
		t.Errorf("warned of %q, want %q", got, want)
	}
	_, err := pods.Create(t.Context(), pod("b", true), metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || err.Error() != hostRefused {
		t.Errorf("got %v", err)
	}
	err = label(t, c, `{"pod-security.kubernetes.io/enforce":"bogus"}`)
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), `metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "bogus": must be one of privileged, baseline, restricted`) {
		t.Errorf("got %v", err)
	}
	if err := label(t, c, `{"pod-security.kubernetes.io/enforce":null,"pod-security.kubernetes.io/warn":"baseline"}`); err != nil {
		t.Fatal(err)
	}
	warned.take()
	if _, err := pods.Create(t.Context(), pod("b", true), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := warned.take(); !slices.Equal(got, []string{onBaseline}) {
		t.Errorf("warned of %q", got)
	}
	metrics, err := c.RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const counted = `pod_security_evaluations_total{decision="deny",mode="enforce",policy_level="baseline",policy_version="latest",request_operation="create",resource="pod",subresource=""} 1`
	if !strings.Contains(string(metrics), counted) {
		t.Error("the refusal was not counted")
	}
}

// The template of a pod controller is warned of and never refused.
func TestTemplates(t *testing.T) {
	c, warned := start(t, "")
	if err := label(t, c, `{"pod-security.kubernetes.io/enforce":"baseline","pod-security.kubernetes.io/warn":"baseline"}`); err != nil {
		t.Fatal(err)
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: pod("", true).Spec},
	}}
	if _, err := c.AppsV1().Deployments("default").Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := warned.take(); !slices.Equal(got, []string{onBaseline}) {
		t.Errorf("warned of %q", got)
	}
}

// The configuration's defaults hold where a namespace says nothing, but not
// for what it exempts.
func TestConfiguration(t *testing.T) {
	c, warned := start(t, `
apiVersion: pod-security.admission.config.k8s.io/v1
kind: PodSecurityConfiguration
defaults: {enforce: baseline, enforce-version: latest}
exemptions: {namespaces: [kube-system], runtimeClasses: [], usernames: []}
`)
	if _, err := c.CoreV1().Pods("kube-system").Create(t.Context(), pod("b", true), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := c.CoreV1().Pods("default").Create(t.Context(), pod("b", true), metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || err.Error() != hostRefused {
		t.Errorf("got %v", err)
	}
	warned.take()
	_, err = c.CoreV1().Namespaces().Patch(t.Context(), "kube-system", types.MergePatchType, []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`namespace "kube-system" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored`}
	if got := warned.take(); !slices.Equal(got, want) {
		t.Errorf("warned of %q, want %q", got, want)
	}
}

func TestBrokenConfiguration(t *testing.T) {
	for configuration, want := range map[string]string{
		`{"apiVersion":"pod-security.admission.config.k8s.io/v1","kind":"PodSecurityConfiguration","defaults":{"enforce":"x"}}`: "enforce: must be one of privileged, baseline, restricted",
		`{"apiVersion":"pod-security.admission.config.k8s.io/v1","kind":"PodSecurityConfiguration","nope":1}`:                   "nope",
	} {
		if _, err := podsecurity.New(podsecurity.Config{Configuration: []byte(configuration)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that names %s", err, want)
		}
	}
}
