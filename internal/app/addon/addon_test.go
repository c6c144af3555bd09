// SPDX-License-Identifier: Apache-2.0

package addon_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver"
	"kaji/internal/app/addon"
	"kaji/internal/client"
	"kaji/internal/dns/corefile"
	"kaji/kajitest"
)

func TestApplyAgain(t *testing.T) {
	ctx := t.Context()
	api := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) {
		c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/112")}
	})).Client()
	values := addon.Values{DNS: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd96::a")}, Corefile: corefile.Default("cluster.local")}
	if err := addon.Apply(ctx, api, values, nil, ""); err != nil {
		t.Fatal(err)
	}
	maps := client.For[*corev1.ConfigMap](api)
	if _, err := maps.MergePatch(ctx, "kube-system", "coredns", map[string]any{"data": map[string]any{"Corefile": "mine"}}, ""); err != nil {
		t.Fatal(err)
	}
	services := client.For[*corev1.Service](api)
	if _, err := services.MergePatch(ctx, "kube-system", "kube-dns", map[string]any{"metadata": map[string]any{"labels": map[string]any{"k8s-app": "changed", "mine": "1"}}}, ""); err != nil {
		t.Fatal(err)
	}
	if err := addon.Apply(ctx, api, values, nil, ""); err != nil {
		t.Fatal(err)
	}
	m, err := maps.Get(ctx, "kube-system", "coredns")
	if err != nil || m.Data["Corefile"] != "mine" {
		t.Errorf("the owner's Corefile is %q (%v)", m.Data["Corefile"], err)
	}
	s, err := services.Get(ctx, "kube-system", "kube-dns")
	if err != nil || s.Labels["k8s-app"] != "kube-dns" || s.Labels["mine"] != "1" || len(s.Spec.ClusterIPs) != 2 {
		t.Errorf("the Service is %v %v (%v)", s.Labels, s.Spec.ClusterIPs, err)
	}
}

func TestSwitchedOff(t *testing.T) {
	api := kajitest.Start(t).Client()
	if err := addon.Apply(t.Context(), api, addon.Values{}, append(addon.Names(), addon.Join), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := client.For[*corev1.ConfigMap](api).Get(t.Context(), "kube-system", "coredns"); err == nil {
		t.Error("an add-on that is off was applied")
	}
}

// Folders of the owner are add-ons: one more, one in the place of another; a fault
// in one does not keep the others; their text and names can be seen.
func TestOwnersFolders(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"storage/class.yaml": "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: mine}\nprovisioner: example.test/mine\n",
		"faulty/x.yaml":      "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: A_B}\n",
		"more/a.yaml":        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\ndata: {domain: {{ .Domain }}}\n",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	api := kajitest.Start(t).Client()
	off := []string{addon.DNS, addon.Ingress, addon.Join, addon.Metrics, addon.Policy}
	stamp := addon.Stamp(dir)
	err := addon.Apply(t.Context(), api, addon.Values{Domain: "cluster.local"}, off, dir)
	if err == nil || !strings.Contains(err.Error(), "add-on faulty: ConfigMap A_B") {
		t.Errorf("the fault: %v", err)
	}
	if m, err := client.For[*corev1.ConfigMap](api).Get(t.Context(), "default", "more"); err != nil || m.Data["domain"] != "cluster.local" {
		t.Errorf("the owner's own: %v %v", m, err)
	}
	classes, err := client.For[*storagev1.StorageClass](api).List(t.Context(), "", metav1.ListOptions{})
	if err != nil || len(classes) != 1 || classes[0].Name != "mine" {
		t.Errorf("classes %v (%v), want mine alone", classes, err)
	}
	names, err := addon.All(dir)
	if err != nil || !slices.Contains(names, "more") || len(names) != 8 {
		t.Errorf("names %v (%v)", names, err)
	}
	if text, err := addon.Text(dir, "storage"); err != nil || !strings.Contains(text, "name: mine") {
		t.Errorf("text %q (%v)", text, err)
	}
	if _, err := addon.Check([]string{"more", addon.DNS}, dir); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"none", addon.Join} {
		if _, err := addon.Check([]string{bad}, dir); err == nil {
			t.Errorf("%s can be left out", bad)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "more", "b.yaml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if addon.Stamp(dir) == stamp {
		t.Error("a new file is not seen")
	}
}
