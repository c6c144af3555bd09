// SPDX-License-Identifier: Apache-2.0

package addon_test

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

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
	if err := addon.Apply(ctx, api, values, nil); err != nil {
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
	if err := addon.Apply(ctx, api, values, nil); err != nil {
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
	if err := addon.Apply(t.Context(), api, addon.Values{}, addon.Names()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.For[*corev1.ConfigMap](api).Get(t.Context(), "kube-system", "coredns"); err == nil {
		t.Error("an add-on that is off was applied")
	}
}
