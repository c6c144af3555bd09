// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
)

// BenchmarkStations is a pod created without being stored, by an account with a
// role among 10,000 bindings: with all stations between socket and store as they
// are by default, with audit before them, and with as little as there can be. The
// difference is what the stations cost. Of a short pod it is more than that: what
// admission adds to it is defaulted, validated, owned and encoded as well, so that
// the same is asked of a pod that says all of it itself.
func BenchmarkStations(b *testing.B) {
	audit := func(level string) []string {
		return []string{"--audit-log-path", b.TempDir() + "/audit.log", "--audit-policy-file",
			write(b, "policy.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: "+level)}
	}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"least", []string{"--authorization-mode", "AlwaysAllow", "--enable-priority-and-fairness=false", "--max-requests-inflight", "0",
			"--max-mutating-requests-inflight", "0", "--disable-admission-plugins", everyPlugin}},
		{"default", nil}, {"audit-Metadata", audit("Metadata")}, {"audit-RequestResponse", audit("RequestResponse")},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := start(b, c.args...)
			account := p.token(b, p.bound(b, 10_000))
			for pod, body := range map[string]string{"short": shortPod, "whole": wholePod} {
				b.Run(pod+"/file", func(b *testing.B) { p.creates(b, "bob", body) })
				b.Run(pod+"/account", func(b *testing.B) { p.creates(b, account, body) })
			}
		})
	}
}

const (
	shortPod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}`

	// wholePod is shortPod as it leaves admission.
	wholePod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
		"containers": [{"name": "c", "image": "i", "volumeMounts": [
			{"name": "kube-api-access-abcde", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]}],
		"serviceAccountName": "default", "priority": 0, "preemptionPolicy": "PreemptLowerPriority", "tolerations": [
			{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
			{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
		"volumes": [{"name": "kube-api-access-abcde", "projected": {"defaultMode": 420, "sources": [
			{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
			{"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
			{"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}]}}`
)

// everyPlugin are the plug-ins that are on by default and judge pods.
const everyPlugin = "NamespaceLifecycle,LimitRanger,ServiceAccount,TaintNodesByCondition,PodSecurity,Priority,DefaultTolerationSeconds,RuntimeClass," +
	"ResourceQuota,PodTopologyLabels,MutatingAdmissionPolicy,MutatingAdmissionWebhook,ValidatingAdmissionPolicy,ValidatingAdmissionWebhook"

// bound makes bindings, one of which lets the account and the user create pods.
func (p *Plane) bound(b *testing.B, n int) client.Interface {
	b.Helper()
	self, err := p.Client("root", []string{"system:masters"}, "bench")
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "pods"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"create"}}}}
	if _, err := client.For[*rbacv1.ClusterRole](self).Create(ctx, role); err != nil {
		b.Fatal(err)
	}
	bindings := client.For[*rbacv1.RoleBinding](self)
	for i := range n {
		user := fmt.Sprintf("user-%d", i)
		if i == n/2 {
			user = "bob"
		}
		_, err := bindings.Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("b-%d", i)},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "pods"},
			Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: user}, {Kind: "ServiceAccount", Namespace: "default", Name: user}}})
		if err != nil {
			b.Fatal(err)
		}
	}
	return self
}

// token returns a token of the account that is bound.
func (p *Plane) token(b *testing.B, self client.Interface) string {
	b.Helper()
	accounts := client.For[*corev1.ServiceAccount](self)
	for _, name := range []string{"default", "bob"} {
		if _, err := accounts.Create(context.Background(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}); err != nil {
			b.Fatal(err)
		}
	}
	r := accounts.Resource("default")
	r.Subresource = "token"
	made, err := self.Create(context.Background(), r, "bob", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return made.(*authenticationv1.TokenRequest).Status.Token
}

// creates sends the requests past the socket.
func (p *Plane) creates(b *testing.B, token, pod string) {
	h := p.Server.Handler()
	b.ReportAllocs()
	before := used(b)
	defer func() { b.ReportMetric(float64(used(b)-before)/float64(b.N), "cpu-ns/op") }()
	for b.Loop() {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/api/v1/namespaces/default/pods?dryRun=All", strings.NewReader(pod))
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusCreated {
			b.Fatalf("%d %s", w.Code, w.Body)
		}
	}
}

// used is the CPU time of this process: the time of day says little on a machine
// that others use.
func used(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
