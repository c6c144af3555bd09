// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"kaji/internal/apiserver/authn/serviceaccount"
	"kaji/internal/pki"
)

// Keys are the credentials of a cluster. What the options do not give is made
// under the certificate directory and kept there.
type Keys struct {
	// CA signs serving and client certificates of the cluster.
	CA *pki.CA
	// FrontProxyCA signs the certificate the aggregator shows.
	FrontProxyCA *pki.CA
	// Serving is the API server's own certificate.
	Serving *fresh[*tls.Certificate]
	// ClientCAs and ProxyCAs judge client certificates.
	ClientCAs, ProxyCAs *fresh[*x509.CertPool]
	// Signing makes ServiceAccount tokens, Verifying judges them. A key that is
	// not there yet is made meanwhile; both wait for it.
	Signing   func() (crypto.Signer, error)
	Verifying func() ([]crypto.PublicKey, error)
	// KubeletClient is shown to node agents, FrontProxy to aggregated servers.
	KubeletClient, FrontProxy *fresh[*tls.Certificate]
	// Admin belongs to the cluster's administrator.
	Admin pki.Pair
}

// loadKeys reads or makes all keys, those that do not need one another at the
// same time: each waits for the disk.
func loadKeys(o *Options) (*Keys, error) {
	dir := o.Serving.CertDir
	if dir == "" {
		dir = filepath.Join(o.DataDir, "pki")
	}
	k := &Keys{}
	if err := atOnce(
		func() (err error) { k.CA, err = pki.EnsureCA(dir, "ca", "kubernetes"); return },
		func() (err error) {
			k.FrontProxyCA, err = pki.EnsureCA(dir, "front-proxy-ca", "front-proxy-ca")
			return
		},
	); err != nil {
		return nil, err
	}
	var err error
	if k.ClientCAs, err = pool(o.Authentication.ClientCAFile, k.CA); err != nil {
		return nil, err
	}
	if k.ProxyCAs, err = pool(o.Authentication.RequestHeaderCAFile, k.FrontProxyCA); err != nil {
		return nil, err
	}
	err = atOnce(
		func() error { return k.serving(o, dir) },
		func() error { return k.tokens(o, dir) },
		func() (err error) {
			k.KubeletClient, err = certificate(o.Kubelet.ClientCertFile, o.Kubelet.ClientKeyFile, dir, k.CA, "apiserver-kubelet-client",
				pki.Leaf{CommonName: "kube-apiserver-kubelet-client", Organizations: []string{"system:masters"}, Client: true})
			return
		},
		func() (err error) {
			k.FrontProxy, err = certificate(o.ProxyClientCertFile, o.ProxyClientKeyFile, dir, k.FrontProxyCA, "front-proxy-client",
				pki.Leaf{CommonName: "front-proxy-client", Client: true})
			return
		},
		func() (err error) {
			k.Admin, err = k.CA.Ensure(dir, "admin", pki.Leaf{CommonName: "kubernetes-admin", Organizations: []string{"system:masters"}, Client: true})
			return
		},
	)
	return k, err
}

// atOnce runs all of do and returns the first error.
func atOnce(do ...func() error) error {
	var group errgroup.Group
	for _, f := range do {
		group.Go(f)
	}
	return group.Wait()
}

func pool(file string, own *pki.CA) (*fresh[*x509.CertPool], error) {
	if file == "" {
		return &fresh[*x509.CertPool]{value: own.Pool()}, nil
	}
	return poolOf(file)
}

// certificate follows the files that were given, or has ca make a certificate.
func certificate(cert, key, dir string, ca *pki.CA, name string, leaf pki.Leaf) (*fresh[*tls.Certificate], error) {
	if cert != "" {
		return pairOf(cert, key)
	}
	// A server that runs for years renews it meanwhile.
	f, err := freshly(func() (*tls.Certificate, error) {
		pair, err := ca.Ensure(dir, name, leaf)
		if err != nil {
			return nil, err
		}
		made, err := pair.TLS()
		return &made, err
	})
	f.every = renewEvery
	return f, err
}

// renewEvery is how often a running server looks whether its certificates are to
// be renewed, which they are in the last third of their lives.
const renewEvery = 12 * time.Hour

func (k *Keys) serving(o *Options, dir string) error {
	leaf, err := servingLeaf(o)
	if err != nil {
		return err
	}
	cert, key := o.Serving.TLSCertFile, o.Serving.TLSKeyFile
	if cert == "" && o.Serving.CertDir != "" {
		cert, key = k.foreign(dir, "apiserver")
	}
	k.Serving, err = certificate(cert, key, dir, k.CA, "apiserver", leaf)
	return err
}

// foreign names the files of a certificate that another authority made and
// somebody laid into the certificate directory; test environments do. It is
// shown as it is, as upstream does, and never replaced.
func (k *Keys) foreign(dir, name string) (cert, key string) {
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil || pair.Leaf == nil || bytes.Equal(pair.Leaf.RawIssuer, k.CA.Certificate().RawSubject) {
		return "", ""
	}
	return cert, key
}

// servingLeaf names everything clients may reach the server by.
func servingLeaf(o *Options) (pki.Leaf, error) {
	leaf := pki.Leaf{CommonName: "kube-apiserver", DNSNames: []string{
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}}
	if host, err := os.Hostname(); err == nil {
		leaf.DNSNames = append(leaf.DNSNames, host)
	}
	leaf.IPs = []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback}
	cidrs, err := o.ServiceRanges()
	if err != nil {
		return leaf, err
	}
	for _, cidr := range cidrs {
		leaf.IPs = append(leaf.IPs, cidr.Addr().Next().AsSlice())
	}
	for _, ip := range append(hostAddresses(), o.Serving.AdvertiseAddress, o.Serving.BindAddress) {
		if ip != nil && !ip.IsUnspecified() {
			leaf.IPs = append(leaf.IPs, ip)
		}
	}
	return leaf, nil
}

// hostAddresses are the machine's own addresses others can reach.
func hostAddresses() []net.IP {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []net.IP
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().IsGlobalUnicast() {
			out = append(out, prefix.Addr().AsSlice())
		}
	}
	return out
}

func (k *Keys) tokens(o *Options, dir string) error {
	if file := o.ServiceAccount.SigningKeyFile; file != "" {
		key, err := readKey(file)
		if err != nil {
			return fmt.Errorf("service account signing key: %w", err)
		}
		k.Signing = func() (crypto.Signer, error) { return key, nil }
	} else {
		k.Signing = sync.OnceValues(func() (crypto.Signer, error) { return pki.EnsureRSAKey(filepath.Join(dir, "sa.key")) })
	}
	if len(o.ServiceAccount.KeyFiles) == 0 {
		k.Verifying = func() ([]crypto.PublicKey, error) {
			key, err := k.Signing()
			if err != nil {
				return nil, err
			}
			return []crypto.PublicKey{key.Public()}, nil
		}
		return nil
	}
	var verifying []crypto.PublicKey
	for _, file := range o.ServiceAccount.KeyFiles {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		keys, err := pki.ParsePublicKeys(data)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		verifying = append(verifying, keys...)
	}
	k.Verifying = func() ([]crypto.PublicKey, error) { return verifying, nil }
	_, err := serviceaccount.KeySet(verifying)
	return err
}

func readKey(file string) (crypto.Signer, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return pki.ParseKey(data)
}

// kubeletTLS is how the server shows itself to node agents. Their certificates
// are checked only against an authority that was named: they may be self-made.
func (k *Keys) kubeletTLS(o *Options) (*tls.Config, error) {
	shown := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return k.KubeletClient.get(), nil }
	c := &tls.Config{GetClientCertificate: shown, MinVersion: tls.VersionTLS12}
	if o.Kubelet.CAFile == "" {
		c.InsecureSkipVerify = true //nolint:gosec // see above
		return c, nil
	}
	roots, err := poolOf(o.Kubelet.CAFile)
	if err != nil {
		return nil, err
	}
	c.RootCAs = roots.get()
	return c, nil
}
