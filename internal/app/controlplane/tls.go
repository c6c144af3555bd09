// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	cliflag "k8s.io/component-base/cli/flag"
)

// fresh is what was read from files; it is read again when they change. A
// change that cannot be read leaves what was. It is safe for concurrent use.
type fresh[T any] struct {
	paths []string
	load  func() (T, error)
	// every is how often it is loaded again without files that change; zero is
	// never.
	every time.Duration

	mu      sync.Mutex // guards all below
	value   T
	seen    string
	checked time.Time
}

// freshly reads the files for the first time.
func freshly[T any](load func() (T, error), paths ...string) (*fresh[T], error) {
	f := &fresh[T]{paths: paths, load: load, checked: time.Now()}
	f.seen = f.stamp()
	var err error
	f.value, err = load()
	return f, err
}

func (f *fresh[T]) stamp() string {
	var b strings.Builder
	for _, path := range f.paths {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, "%d %d;", info.ModTime().UnixNano(), info.Size())
		}
	}
	return b.String()
}

// get returns the present value; the files are looked at once a second at most.
func (f *fresh[T]) get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.paths) == 0 && f.every == 0 || time.Since(f.checked) < max(f.every, time.Second) {
		return f.value
	}
	f.checked = time.Now()
	if f.every > 0 {
		if value, err := f.load(); err == nil {
			f.value = value
		}
		return f.value
	}
	if now := f.stamp(); now != f.seen {
		if value, err := f.load(); err == nil {
			f.value, f.seen = value, now
		}
	}
	return f.value
}

// named is a certificate for some names (none: those in the certificate).
type named struct {
	certificate *fresh[*tls.Certificate]
	names       []string
}

// serverTLS is how the server shows itself, as the flags say: lowest version,
// cipher suites, and a certificate by the name the client asks for.
func serverTLS(o *Options, k *Keys) (*tls.Config, error) {
	s := &o.Serving
	c := &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}}
	var err error
	if s.TLSMinVersion != "" {
		if c.MinVersion, err = cliflag.TLSVersion(s.TLSMinVersion); err != nil {
			return nil, fmt.Errorf("--tls-min-version: %w", err)
		}
	}
	if len(s.TLSCipherSuites) > 0 {
		if c.CipherSuites, err = cliflag.TLSCipherSuites(s.TLSCipherSuites); err != nil {
			return nil, fmt.Errorf("--tls-cipher-suites: %w", err)
		}
	}
	var others []named
	for _, text := range s.SNICertKeys {
		n, err := parseNamed(text)
		if err != nil {
			return nil, fmt.Errorf("--tls-sni-cert-key %s: %w", text, err)
		}
		others = append(others, n)
	}
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		for _, n := range others {
			if cert := n.certificate.get(); n.serves(cert, hello.ServerName) {
				return cert, nil
			}
		}
		return k.Serving.get(), nil
	}
	return c, nil
}

// parseNamed reads "certificate,key" with ":name,…" behind it.
func parseNamed(text string) (named, error) {
	files, names, _ := strings.Cut(text, ":")
	cert, key, ok := strings.Cut(files, ",")
	if !ok {
		return named{}, errors.New("expected comma separated certificate and key file paths")
	}
	var n named
	if names != "" {
		n.names = strings.Split(strings.ToLower(names), ",")
	}
	var err error
	n.certificate, err = pairOf(cert, key)
	return n, err
}

// pairOf follows a certificate and its key.
func pairOf(cert, key string) (*fresh[*tls.Certificate], error) {
	return freshly(func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		return &pair, err
	}, cert, key)
}

func (n named) serves(cert *tls.Certificate, server string) bool {
	if server == "" {
		return false
	}
	if len(n.names) == 0 {
		return cert.Leaf != nil && cert.Leaf.VerifyHostname(server) == nil
	}
	server = strings.ToLower(server)
	_, parent, _ := strings.Cut(server, ".")
	for _, name := range n.names {
		if name == server || parent != "" && name == "*."+parent {
			return true
		}
	}
	return false
}

// poolOf follows a bundle of authorities.
func poolOf(file string) (*fresh[*x509.CertPool], error) {
	return freshly(func() (*x509.CertPool, error) {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		p := x509.NewCertPool()
		if !p.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s holds no PEM certificate", file)
		}
		return p, nil
	}, file)
}
