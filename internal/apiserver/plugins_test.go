// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"slices"
	"strings"
	"testing"
)

// The plug-ins, in the order of the reference implementation, and NodeVolumes,
// our own; "-" says that one is off unless it is asked for.
func TestPluginOrder(t *testing.T) {
	const want = `-AlwaysAdmit -NamespaceAutoProvision NamespaceLifecycle -NamespaceExists -LimitPodHardAntiAffinityTopology
		LimitRanger ServiceAccount -NodeRestriction NodeVolumes TaintNodesByCondition -AlwaysPullImages -ImagePolicyWebhook PodSecurity
		-PodNodeSelector Priority DefaultTolerationSeconds -PodTolerationRestriction -EventRateLimit -ExtendedResourceToleration
		DefaultStorageClass StorageObjectInUseProtection PodGroupProtection -OwnerReferencesPermissionEnforcement
		PersistentVolumeClaimResize RuntimeClass CertificateApproval CertificateSigning ClusterTrustBundleAttest
		CertificateSubjectRestriction DefaultIngressClass -DenyServiceExternalIPs PodTopologyLabels
		NodeDeclaredFeatureValidator PodResizeValidator ResourceQuota -AlwaysDeny`
	var got []string
	for _, p := range plugins {
		name := p.name
		if p.off {
			name = "-" + name
		}
		got = append(got, name)
	}
	if want := strings.Fields(want); !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestUnknownPlugins(t *testing.T) {
	for _, c := range []struct {
		enabled, disabled []string
		want              string
	}{
		{enabled: []string{"Foo"}, want: `enable-admission-plugins plugin "Foo" is unknown`},
		{disabled: []string{"Foo"}, want: `disable-admission-plugins plugin "Foo" is unknown`},
		{enabled: []string{"Priority"}, disabled: []string{"Priority"}, want: "[Priority] in enable-admission-plugins and disable-admission-plugins overlapped"},
	} {
		if err := checkAdmission(c.enabled, c.disabled); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	if err := checkAdmission([]string{"MutatingAdmissionWebhook", "AlwaysPullImages"}, []string{"ServiceAccount"}); err != nil {
		t.Error(err)
	}
}
