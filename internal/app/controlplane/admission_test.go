// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A plug-in's configuration stands in the file or beside it; what is wrong is
// named.
func TestAdmissionConfigurations(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n"
	write("quota.yaml", "kind: ResourceQuotaConfiguration\n")
	all, err := admissionConfigurations(write("good.yaml", head+`plugins:
- name: PodSecurity
  configuration: {kind: PodSecurityConfiguration}
- name: ResourceQuota
  path: quota.yaml
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(all["PodSecurity"]); got != `{"kind":"PodSecurityConfiguration"}` {
		t.Errorf("PodSecurity: got %s", got)
	}
	if got := string(all["ResourceQuota"]); got != "kind: ResourceQuotaConfiguration\n" {
		t.Errorf("ResourceQuota: got %s", got)
	}
	for text, want := range map[string]string{
		head + "plugins: [{name: A, path: none.yaml}]": "plugins[0].path",
		head + "plugins: [{path: x}]":                  "plugins[0].name",
		head + "nope: 1":                               "nope",
		"kind: Else\napiVersion: v1":                   `"Else"`,
	} {
		if _, err := admissionConfigurations(write("bad.yaml", text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error that names %s", text, err, want)
		}
	}
}
