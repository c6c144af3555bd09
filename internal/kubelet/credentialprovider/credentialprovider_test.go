// SPDX-License-Identifier: Apache-2.0

package credentialprovider

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/kubelet/image"
)

// program counts how often it is asked, and answers with what it was asked.
const program = `#!/bin/sh
read request
echo "$request" >> "$OUT"
case "$request" in
*broken*) echo nonsense; exit 0 ;;
*refused*) echo "no such registry" >&2; exit 3 ;;
esac
echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry","cacheDuration":"1h","auth":{"*.example.com":{"username":"'$1'","password":"secret"}}}'
`

func setup(t *testing.T, attributes string) (p *Providers, asked func() []string) {
	t.Helper()
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	config := `
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: sample
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["*.example.com"]
  defaultCacheDuration: 0s
  args: [me]
  env: [{name: OUT, value: ` + out + `}]
` + attributes
	for name, text := range map[string]string{"config.yaml": config, "sample": program} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil { //nolint:gosec // it is to be run
			t.Fatal(err)
		}
	}
	all, err := Load(filepath.Join(dir, "config.yaml"), dir)
	if err != nil {
		t.Fatal(err)
	}
	p = New(Config{Providers: all, Bin: dir, Logger: slog.New(slog.DiscardHandler),
		Account: func(context.Context, *corev1.Pod) (*corev1.ServiceAccount, error) {
			return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "sa", UID: "u", Annotations: map[string]string{"wanted": "yes", "other": "no"}}}, nil
		},
		Token: func(_ context.Context, pod *corev1.Pod, audience string) (string, error) {
			return "token of " + pod.Name + " for " + audience, nil
		}})
	return p, func() []string {
		data, err := os.ReadFile(out)
		if err != nil {
			return nil
		}
		return strings.Split(strings.TrimSpace(string(data)), "\n")
	}
}

// A plug-in is asked for the images that it is there for, once a registry.
func TestPlugin(t *testing.T) {
	p, asked := setup(t, "")
	pod := &corev1.Pod{}
	for _, name := range []string{"r.example.com/app:1", "r.example.com/other@sha256:1", "example.org/app"} {
		secrets := p.Secrets(t.Context(), pod, name)
		auths, err := image.Credentials(name, secrets)
		if name == "example.org/app" {
			if len(auths) != 0 || err != nil {
				t.Errorf("%s: got %v, %v", name, auths, err)
			}
		} else if err != nil || len(auths) != 1 || auths[0].Auth.Username != "me" || auths[0].Auth.Password != "secret" {
			t.Errorf("%s: got %v, %v", name, auths, err)
		}
	}
	if got := asked(); len(got) != 1 || !strings.Contains(got[0], `"image":"r.example.com/app:1"`) {
		t.Errorf("it was asked %q", got)
	}
	if got := p.Secrets(t.Context(), pod, "refused.example.com/app"); len(got) != 0 {
		t.Errorf("got %v of a plug-in that failed", got)
	}
	if got := p.Secrets(t.Context(), pod, "broken.example.com/app"); len(got) != 0 {
		t.Errorf("got %v of a plug-in that said nothing", got)
	}
}

// A plug-in may be shown the pod's own token; then pods do not share its answers.
func TestToken(t *testing.T) {
	p, asked := setup(t, `  tokenAttributes: {serviceAccountTokenAudience: reg, cacheType: Token, requireServiceAccount: true, requiredServiceAccountAnnotationKeys: [wanted]}
`)
	pod := func(name string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.PodSpec{ServiceAccountName: "sa"}}
	}
	for _, name := range []string{"a", "a", "b"} {
		if got := p.Secrets(t.Context(), pod(name), "r.example.com/app"); len(got) != 1 {
			t.Errorf("%s got %v", name, got)
		}
	}
	got := asked()
	if len(got) != 2 || !strings.Contains(got[0], `"serviceAccountToken":"token of a for reg"`) || !strings.Contains(got[0], `"serviceAccountAnnotations":{"wanted":"yes"}`) || !strings.Contains(got[1], "token of b") {
		t.Errorf("it was asked %q", got)
	}
	static := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "static"}}
	if got := p.Secrets(t.Context(), static, "r.example.com/app"); len(got) != 0 {
		t.Errorf("a pod without an account got %v", got)
	}
}

func TestBadConfiguration(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"kind: Pod\napiVersion: v1\n":                                                           `failed to decode "Pod" (wrong Kind)`,
		"kind: X\napiVersion: kubelet.config.k8s.io/v1\nproviders: []\n":                        `failed to decode "X" (wrong Kind)`,
		"kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders: []\n": "at least 1 item in plugins is required",
		"kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v2\nproviders: []\n": "unexpected version: kubelet.config.k8s.io/v2",
		"kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders: [{name: x, matchImages: [a], defaultCacheDuration: 0s, apiVersion: credentialprovider.kubelet.k8s.io/v1}]\n": "plugin binary executable " + dir + "/x did not exist",
	} {
		path := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
