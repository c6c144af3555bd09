// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"kaji/internal/app/kubeconfig"
	"kaji/internal/client"
	"kaji/internal/controller/certificates"
	"kaji/internal/pki"
	"kaji/kajitest"
)

// identityOf is an identity that is kept in a file of the test's.
func identityOf(t *testing.T, ca *pki.CA, server string) (*identity, *rest.Config) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubelet.kubeconfig")
	if err := kubeconfig.Write(path, kubeconfig.New("test", server, ca.Pair.Cert, issue(t, ca))); err != nil {
		t.Fatal(err)
	}
	config, id, err := identified(&Config{NodeName: "n", Logger: slog.New(slog.DiscardHandler)}, path)
	if err != nil {
		t.Fatal(err)
	}
	return id, config
}

// issue makes a certificate of the node n that is good for a day.
func issue(t *testing.T, ca *pki.CA) pki.Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "system:node:n", Organization: []string{"system:nodes"}},
		NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	cert, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate(), key.Public(), ca.Signer())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pki.Pair{Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), Key: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})}
}

func authority(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.EnsureCA(t.TempDir(), "ca", "test")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// ends is when the certificate in the identity's file ends.
func ends(t *testing.T, id *identity) time.Time {
	t.Helper()
	config, err := load(id.path)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if !leaf.NotAfter.Equal(id.current.Load().Leaf.NotAfter) {
		t.Errorf("the file's certificate ends at %v, the one in use at %v", leaf.NotAfter, id.current.Load().Leaf.NotAfter)
	}
	return leaf.NotAfter
}

// start runs things until the test ends.
func start(t *testing.T, run ...func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, len(run))
	for _, r := range run {
		go func() { done <- r(ctx) }()
	}
	return func() {
		cancel()
		for range run {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}

func signer(api client.Interface, ca *pki.CA, life time.Duration) *certificates.Controller {
	return certificates.NewSigner(certificates.SignerConfig{Client: api, Life: life,
		Authorities: map[string]*pki.CA{certificatesv1.KubeAPIServerClientKubeletSignerName: ca}})
}

func TestACertificateIsRenewedAgainAndAgain(t *testing.T) {
	for _, life := range []time.Duration{30 * time.Second, 24 * time.Hour} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster, ca := kajitest.Start(t), authority(t)
				id, _ := identityOf(t, ca, "https://127.0.0.1:1")
				api := cluster.As(&user.DefaultInfo{Name: "system:node:n", Groups: []string{"system:nodes", "system:authenticated"}})
				stop := start(t, certificates.NewApprover(cluster.Client(), nil).Run, signer(cluster.Client(), ca, life).Run,
					func(ctx context.Context) error { return id.run(ctx, api) })
				defer stop()
				<-time.After(time.Until(ends(t, id)) - time.Second)
				synctest.Wait()
				made := func() []*certificatesv1.CertificateSigningRequest {
					list, err := client.For[*certificatesv1.CertificateSigningRequest](cluster.Client()).List(t.Context(), "", metav1.ListOptions{})
					if err != nil {
						t.Fatal(err)
					}
					return list
				}
				before := len(made())
				for range 5 {
					left := time.Until(ends(t, id))
					if left <= 0 || left > life {
						t.Fatalf("the certificate ends in %v", left)
					}
					<-time.After(left - time.Second)
					synctest.Wait()
				}
				after := made()
				if n := len(after) - before; n != 5 {
					t.Errorf("%d requests were made for five certificates", n)
				}
				if why := after[0].Status.Conditions[0].Message; why != "Auto approving self kubelet client certificate after SubjectAccessReview." {
					t.Errorf("approved because: %s", why)
				}
			})
		})
	}
}

func TestARefusedRenewalIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, ca := kajitest.Start(t), authority(t)
		id, _ := identityOf(t, ca, "https://127.0.0.1:1")
		first := ends(t, id)
		requests := client.For[*certificatesv1.CertificateSigningRequest](cluster.Client())
		verdicts := []certificatesv1.RequestConditionType{certificatesv1.CertificateDenied, certificatesv1.CertificateApproved}
		requests.AddHandler(client.Handler[*certificatesv1.CertificateSigningRequest]{Add: func(r *certificatesv1.CertificateSigningRequest) {
			if len(verdicts) == 0 {
				return
			}
			next, at := r.DeepCopy(), requests.Resource("")
			next.Status.Conditions = append(next.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: verdicts[0], Status: corev1.ConditionTrue, Reason: "R"})
			at.Subresource, verdicts = "approval", verdicts[1:]
			if _, err := cluster.Client().Update(t.Context(), at, r.Name, next, metav1.UpdateOptions{}); err != nil {
				t.Error(err)
			}
		}})
		stop := start(t, signer(cluster.Client(), ca, 48*time.Hour).Run, func(ctx context.Context) error { return id.run(ctx, cluster.Client()) })
		defer stop()
		<-time.After(time.Until(first))
		synctest.Wait()
		if len(verdicts) > 0 || !ends(t, id).After(first) {
			t.Errorf("the certificate ends at %v, %d verdicts are left", ends(t, id), len(verdicts))
		}
	})
}

func TestConnectionsAreMadeWithTheNewest(t *testing.T) {
	ca := authority(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.PeerCertificates[0].SerialNumber)
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool()}
	server.StartTLS()
	defer server.Close()
	id, config := identityOf(t, ca, server.URL)
	config.CAData = nil
	config.Insecure = true // the test server has a certificate of its own
	own, err := id.config(config)
	if err != nil {
		t.Fatal(err)
	}
	c, err := rest.HTTPClientFor(own)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		answer, err := c.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if want := id.current.Load().Leaf.SerialNumber.String(); err != nil || string(got) != want {
			t.Errorf("the server met %s, not %s (%v)", got, want, err)
		}
		if err := id.take(issue(t, ca)); err != nil {
			t.Fatal(err)
		}
		id.conns.CloseAll()
	}
}

func TestAnothersCertificateIsRefused(t *testing.T) {
	id, _ := identityOf(t, authority(t), "https://127.0.0.1:1")
	if _, _, err := identified(&Config{NodeName: "m"}, id.path); err == nil {
		t.Error("node m runs as node n")
	}
}
