// SPDX-License-Identifier: Apache-2.0

package dynamic

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A configuration of the webhooks that would fail when they are first called is
// refused.
func TestCheck(t *testing.T) {
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: WebhookAdmissionConfiguration\n"
	good := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(good, []byte("apiVersion: v1\nkind: Config\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                               "",
		head + "kubeConfigFile: " + good: "",
		head + "kubeConfigFile: /nope/kubeconfig": `couldn't init admission plugin "ValidatingAdmissionWebhook": stat /nope/kubeconfig: no such file or directory`,
		head + "kubeConfigFile: rel":              "kubeConfigFile: Invalid value: \"rel\": must be an absolute file path",
		head + "foo: 1":                           `strict decoding error: unknown field "foo"`,
		"apiVersion: v1\nkind: Pod\n":             `no kind "Pod" is registered`,
	} {
		err := Check(map[string][]byte{"ValidatingAdmissionWebhook": []byte(text)})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
