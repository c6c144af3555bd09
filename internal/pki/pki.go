// SPDX-License-Identifier: Apache-2.0

// Package pki makes and keeps the keys and certificates of a cluster: the
// certificate authorities, the components' certificates and the key that signs
// ServiceAccount tokens. The wiring in package app calls it at start.
//
// Certificates of servers last a year, those of clients ten, authorities twenty.
// Certificates renew themselves: Ensure issues a new one when less than a third
// of its life is left or when its names no longer cover what is asked. It
// never deletes a CA and never writes a key readable by others.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	caLife = 20 * 365 * 24 * time.Hour
	// leafLife is short of two years: some clients refuse longer serving
	// certificates.
	leafLife = 365 * 24 * time.Hour
	// clientLife is that of certificates for clients alone: a kubeconfig that was
	// handed out must not end while nobody looks.
	clientLife = 10 * leafLife
	// backdate tolerates clocks that run behind.
	backdate = 5 * time.Minute
)

// Pair is a certificate with its key, PEM encoded.
type Pair struct {
	Cert, Key []byte
}

// TLS parses the pair.
func (p Pair) TLS() (tls.Certificate, error) { return tls.X509KeyPair(p.Cert, p.Key) }

// CA is a certificate authority.
type CA struct {
	Pair
	cert *x509.Certificate
	key  crypto.Signer
}

// Certificate returns the authority's own certificate; it must not be modified.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// Signer returns the authority's key.
func (ca *CA) Signer() crypto.Signer { return ca.key }

// Pool returns a pool that trusts this authority alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Leaf describes a certificate to issue.
type Leaf struct {
	CommonName    string
	Organizations []string
	// DNSNames and IPs make it a serving certificate as well.
	DNSNames []string
	IPs      []net.IP
	// Client allows client authentication.
	Client bool
}

// EnsureCA reads dir/name.{crt,key} or creates them.
func EnsureCA(dir, name, commonName string) (*CA, error) {
	pair, err := read(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		if pair, err = newCA(commonName); err == nil {
			err = write(dir, name, pair)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority %s: %w", name, err)
	}
	return ParseCA(pair)
}

// ParseCA parses an authority from PEM.
func ParseCA(pair Pair) (*CA, error) {
	parsed, err := pair.TLS()
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	cert, err := x509.ParseCertificate(parsed.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	signer, ok := parsed.PrivateKey.(crypto.Signer)
	if !ok || !cert.IsCA {
		return nil, errors.New("certificate authority: not a CA certificate with a signing key")
	}
	return &CA{Pair: pair, cert: cert, key: signer}, nil
}

func newCA(commonName string) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: commonName},
		DNSNames:              []string{commonName},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	return sign(template, template, key, key)
}

// Issue signs a new certificate.
func (ca *CA) Issue(leaf Leaf) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organizations},
		DNSNames:     leaf.DNSNames,
		IPAddresses:  leaf.IPs,
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(clientLife),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	if leaf.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if len(leaf.DNSNames)+len(leaf.IPs) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.NotAfter = now.Add(leafLife)
	}
	return sign(template, ca.cert, key, ca.key)
}

// Ensure reads dir/name.{crt,key}, or issues and writes a new pair when it is
// absent, about to expire, signed by another authority or lacks a name.
func (ca *CA) Ensure(dir, name string, leaf Leaf) (Pair, error) {
	pair, err := read(dir, name)
	if err == nil && ca.covers(pair, leaf) {
		return pair, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Pair{}, fmt.Errorf("certificate %s: %w", name, err)
	}
	if pair, err = ca.Issue(leaf); err == nil {
		err = write(dir, name, pair)
	}
	if err != nil {
		return Pair{}, fmt.Errorf("certificate %s: %w", name, err)
	}
	return pair, nil
}

// covers says whether the pair still serves as the leaf asked for.
func (ca *CA) covers(pair Pair, leaf Leaf) bool {
	parsed, err := pair.TLS()
	if err != nil {
		return false
	}
	cert, err := x509.ParseCertificate(parsed.Certificate[0])
	if err != nil || cert.CheckSignatureFrom(ca.cert) != nil {
		return false
	}
	if time.Until(cert.NotAfter) < cert.NotAfter.Sub(cert.NotBefore)/3 {
		return false
	}
	if cert.Subject.CommonName != leaf.CommonName || !slices.Equal(cert.Subject.Organization, leaf.Organizations) {
		return false
	}
	for _, name := range leaf.DNSNames {
		if !slices.Contains(cert.DNSNames, name) {
			return false
		}
	}
	for _, ip := range leaf.IPs {
		if !slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

// EnsureRSAKey reads the private key at path, or creates one (RSA, 2048 bits)
// and writes it, readable by its owner only. Creating it takes a tenth of a
// second or more.
func EnsureRSAKey(path string) (crypto.Signer, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		encoded := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
		return key, writeFile(path, encoded, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return ParseKey(data)
}

// ParseKey parses a PEM private key in PKCS #8, PKCS #1 or SEC 1 form.
func ParseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM block with a private key")
	}
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("parsing private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

// ParsePublicKeys parses every public key of a PEM file; of certificates and
// private keys it takes the public one.
func ParsePublicKeys(data []byte) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		one := pem.EncodeToMemory(block)
		switch block.Type {
		case "PUBLIC KEY":
			key, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("parsing public key: %w", err)
			}
			keys = append(keys, key)
		case "RSA PUBLIC KEY":
			key, err := x509.ParsePKCS1PublicKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("parsing public key: %w", err)
			}
			keys = append(keys, key)
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("parsing certificate: %w", err)
			}
			keys = append(keys, cert.PublicKey)
		default:
			key, err := ParseKey(one)
			if err != nil {
				return nil, err
			}
			keys = append(keys, key.Public())
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no PEM block with a key")
	}
	return keys, nil
}

func sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey, signer crypto.Signer) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, err
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Key: encoded}, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic("pki: the system has no randomness: " + err.Error())
	}
	return n
}

func read(dir, name string) (Pair, error) {
	cert, err := os.ReadFile(filepath.Join(dir, name+".crt"))
	if err != nil {
		return Pair{}, err
	}
	key, err := os.ReadFile(filepath.Join(dir, name+".key"))
	return Pair{Cert: cert, Key: key}, err
}

// write puts the key first: a crash in between leaves no certificate, and the
// pair is made again. Both are on the disk before either gets its name.
func write(dir, name string, pair Pair) error {
	key, err := prepare(filepath.Join(dir, name+".key"), pair.Key, 0o600)
	if err != nil {
		return err
	}
	defer key.discard()
	cert, err := prepare(filepath.Join(dir, name+".crt"), pair.Cert, 0o644)
	if err != nil {
		return err
	}
	defer cert.discard()
	synced := make(chan error, 1)
	go func() { synced <- key.Sync() }()
	if err := errors.Join(cert.Sync(), <-synced); err != nil {
		return err
	}
	if err := key.publish(); err != nil {
		return err
	}
	return cert.publish()
}

// writeFile replaces path atomically and durably.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	f, err := prepare(path, data, mode)
	if err != nil {
		return err
	}
	defer f.discard()
	if err := f.Sync(); err != nil {
		return err
	}
	return f.publish()
}

// pending is a file that waits for its name.
type pending struct {
	*os.File
	path string
}

func prepare(path string, data []byte, mode fs.FileMode) (*pending, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return nil, err
	}
	p := &pending{File: f, path: path}
	if _, err = f.Write(data); err == nil {
		err = f.Chmod(mode)
	}
	if err != nil {
		p.discard()
		return nil, err
	}
	return p, nil
}

// publish gives the file its name.
func (p *pending) publish() error {
	if err := p.Close(); err != nil {
		return err
	}
	return os.Rename(p.Name(), p.path)
}

// discard removes what was not published.
func (p *pending) discard() {
	p.Close()
	os.Remove(p.Name())
}
