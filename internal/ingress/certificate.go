// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"

	"kaji/internal/ingress/route"
)

// certificateFor chooses the certificate of a handshake: a renewed Secret
// counts from the next one on.
func (c *Controller) certificateFor(port uint16, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if found := c.gateway.Certificate(port, hello, route.Host(hello.ServerName)); found != nil {
		return found, nil
	}
	name, ok := c.current.Load().table.Secret(route.Host(hello.ServerName))
	if ok && name.Name != "" {
		if e := c.secrets.Get(name); e != nil && e.Certificate != nil {
			return e.Certificate, nil
		}
	}
	return c.standard()
}

// selfMade makes the certificate for hosts that have none of their own.
func selfMade() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"kaji"}, CommonName: "Ingress Controller Default Certificate"},
		DNSNames: []string{"ingress.local"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
