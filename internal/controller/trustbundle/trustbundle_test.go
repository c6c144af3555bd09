// SPDX-License-Identifier: Apache-2.0

package trustbundle_test

import (
	"crypto/sha256"
	"fmt"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/trustbundle"
	"kaji/internal/pki"
)

func TestTheAuthorityIsPublished(t *testing.T) {
	var ca *pki.CA
	start := func(api client.Interface) []bubble.Controller {
		var err error
		if ca, err = pki.EnsureCA(t.TempDir(), "ca", "test"); err != nil {
			t.Fatal(err)
		}
		return []bubble.Controller{trustbundle.New(api, ca.Cert, nil)}
	}
	bubble.RunAs(t, "kube-apiserver-serving-clustertrustbundle-publisher", start, func(b *bubble.Bubble) {
		all, ctx := client.For[*certificatesv1.ClusterTrustBundle](b.API), b.Context()
		former := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes.io:kube-apiserver-serving:old"},
			Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: "kubernetes.io/kube-apiserver-serving", TrustBundle: string(ca.Cert)}}
		others := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: string(ca.Cert)}}
		bubble.Must(all.Create(ctx, former))(b)
		bubble.Must(all.Create(ctx, others))(b)
		b.Settle()
		sum := sha256.Sum256(ca.Cert)
		name := fmt.Sprintf("kubernetes.io:kube-apiserver-serving:%x", sum[:12])
		published := func() bool {
			b.Helper()
			list := bubble.Must(all.List(ctx, "", metav1.ListOptions{}))(b)
			return len(list) == 2 && list[0].Name == name && list[0].Spec.TrustBundle == string(ca.Cert) && list[1].Name == "mine"
		}
		if !published() {
			b.Errorf("bundles %v", bubble.Must(all.List(ctx, "", metav1.ListOptions{}))(b))
		}
		if err := all.Delete(ctx, "", name, metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		b.Settle()
		if !published() {
			b.Error("it was deleted and did not come back")
		}
	})
}
