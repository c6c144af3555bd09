// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"kaji/internal/apiserver/authn/verified"
)

// verifier verifies chains of client certificates. The signatures of a chain
// that was good are not verified again: they cost more than a small request does
// otherwise, and all requests of a connection come with the same chain. What
// changes is looked at every time: the day, and the pool of roots.
//
// The zero value is ready; it is safe for concurrent use.
type verifier struct {
	mu    sync.Mutex
	roots *x509.CertPool
	known *verified.Memory[shown, good] // under these roots
}

// shown is a chain as a connection holds it. Package tls parses equal
// certificates of connections that overlap once, and nobody changes them.
type shown [4]*x509.Certificate

// good is what is known of a chain.
type good struct {
	from, until time.Time // all certificates between the client's and a root are good
	credential  string    // for the user's attributes
}

// verify checks a chain, which is not empty, for use by a client.
func (v *verifier) verify(roots *x509.CertPool, chain []*x509.Certificate) (good, error) {
	var credential shown
	if copy(credential[:], chain) < len(chain) { // longer than any in use
		return verify(roots, chain)
	}
	known, now := v.under(roots), time.Now()
	if g, ok := known.Get(credential); ok && !now.Before(g.from) && !now.After(g.until) {
		return g, nil
	}
	g, err := verify(roots, chain)
	if err == nil {
		known.Put(credential, g)
	}
	return g, err
}

// under is what is known with a pool of roots; other roots forget it.
func (v *verifier) under(roots *x509.CertPool) *verified.Memory[shown, good] {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known == nil || v.roots != roots {
		v.roots, v.known = roots, &verified.Memory[shown, good]{}
	}
	return v.known
}

// verify checks a chain without any memory, and says how long it is good; of
// several ways to a root, the one that is good longest counts.
func verify(roots *x509.CertPool, chain []*x509.Certificate) (good, error) {
	leaf := chain[0]
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, intermediate := range chain[1:] {
		options.Intermediates.AddCert(intermediate)
	}
	if options.Roots == nil {
		options.Roots = x509.NewCertPool()
	}
	ways, err := leaf.Verify(options)
	if err != nil {
		return good{}, fmt.Errorf("verifying certificate SN=%d, SKID=%s, AKID=%s failed: %w",
			leaf.SerialNumber, columnSeparatedHex(leaf.SubjectKeyId), columnSeparatedHex(leaf.AuthorityKeyId), err)
	}
	sum := sha256.Sum256(leaf.Raw)
	longest := good{credential: "X509SHA256=" + hex.EncodeToString(sum[:])}
	for _, way := range ways {
		from, until := leaf.NotBefore, leaf.NotAfter
		for _, c := range way {
			if c.NotBefore.After(from) {
				from = c.NotBefore
			}
			if c.NotAfter.Before(until) {
				until = c.NotAfter
			}
		}
		if until.After(longest.until) {
			longest.from, longest.until = from, until
		}
	}
	return longest, nil
}
