// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"kaji/internal/app/kubeconfig"
	"kaji/internal/client"
	"kaji/internal/client/remote"
	"kaji/internal/pki"
)

// join asks the cluster for a certificate of the node's own with a bootstrap
// token, and writes the credentials to path.
func join(ctx context.Context, c *Config, path string) error {
	if c.Server == "" || c.Token == "" || c.CAHash == "" {
		return errors.New("to join a cluster, give --server, --token and --ca-cert-hash (`kaji token create` on the server prints them), or --kubeconfig")
	}
	if at, err := url.Parse(c.Server); err != nil || at.Scheme != "https" || at.Host == "" {
		return fmt.Errorf("--server: %q is no address of a server, such as https://192.0.2.1:6443", c.Server)
	}
	ca, err := discover(ctx, c)
	if err != nil {
		return fmt.Errorf("joining %s: %w", c.Server, err)
	}
	api, err := remote.New(&rest.Config{Host: c.Server, BearerToken: c.Token, TLSClientConfig: rest.TLSClientConfig{CAData: ca}})
	if err != nil {
		return err
	}
	pair, err := request(ctx, api, c.NodeName, c.Logger)
	if apierrors.IsUnauthorized(err) {
		return fmt.Errorf("joining %s: the server does not take the token: it is wrong or has expired; `kaji token create` on the server makes another", c.Server)
	}
	if err != nil {
		return fmt.Errorf("joining %s: %w", c.Server, err)
	}
	return kubeconfig.Write(path, kubeconfig.New(c.Name, c.Server, ca, pair))
}

// discover reads the cluster's authority from where everybody may, and believes
// it by the hash of its public key.
func discover(ctx context.Context, c *Config) ([]byte, error) {
	api, err := remote.New(&rest.Config{Host: c.Server, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, Timeout: 30 * time.Second})
	if err != nil {
		return nil, err
	}
	info, err := client.For[*corev1.ConfigMap](api).Get(ctx, metav1.NamespacePublic, "cluster-info")
	if unreachable := (*url.Error)(nil); errors.As(err, &unreachable) {
		return nil, fmt.Errorf("the server cannot be reached (%w): see that it runs, that --server is its address, and that no firewall is in between", unreachable.Err)
	}
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.Load([]byte(info.Data["kubeconfig"]))
	if err != nil {
		return nil, fmt.Errorf("cluster-info: %w", err)
	}
	for _, cluster := range config.Clusters {
		if hash, err := Hash(cluster.CertificateAuthorityData); err == nil && subtle.ConstantTimeCompare([]byte(hash), []byte(strings.ToLower(c.CAHash))) == 1 {
			return cluster.CertificateAuthorityData, nil
		}
	}
	return nil, errors.New("the server's certificate authority does not have the expected hash: this is another cluster, or somebody is in between")
}

// Hash names an authority by its public key, as kubeadm does: "sha256:" and the
// hash of its SubjectPublicKeyInfo.
func Hash(caPEM []byte) (string, error) {
	block, _ := pem.Decode(caPEM)
	if block == nil {
		return "", errors.New("no PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// request asks for a client certificate of a node with a new key, and waits
// until it is there.
func request(ctx context.Context, api client.Interface, nodeName string, log *slog.Logger) (pki.Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pki.Pair{}, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return pki.Pair{}, err
	}
	signing, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}}}, key)
	if err != nil {
		return pki.Pair{}, err
	}
	csr, err := client.For[*certificatesv1.CertificateSigningRequest](api).Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "node-csr-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: signing}),
			SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		}})
	if err != nil {
		return pki.Pair{}, err
	}
	cert, err := signed(ctx, api, csr, log)
	return pki.Pair{Cert: cert, Key: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})}, err
}

// signed waits until a request has its certificate.
func signed(ctx context.Context, api client.Interface, csr *certificatesv1.CertificateSigningRequest, log *slog.Logger) (_ []byte, err error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for started := time.Now(); ; {
		if len(csr.Status.Certificate) > 0 {
			return csr.Status.Certificate, nil
		}
		for _, cond := range csr.Status.Conditions {
			if cond.Type == certificatesv1.CertificateDenied || cond.Type == certificatesv1.CertificateFailed {
				return nil, fmt.Errorf("the certificate request %s was refused: %s", csr.Name, cond.Message)
			}
		}
		if time.Since(started) > 5*time.Second {
			log.Info("waiting for the certificate request to be approved and signed", "request", csr.Name, "approve with", "kubectl certificate approve "+csr.Name)
			started = time.Now().Add(time.Minute)
			tick.Reset(2 * time.Second)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
		if csr, err = client.For[*certificatesv1.CertificateSigningRequest](api).Get(ctx, "", csr.Name); err != nil {
			return nil, err
		}
	}
}
