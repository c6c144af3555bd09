// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"kaji/internal/apiserver/authn/verified"
)

// verifier verifies chains of client certificates. The signatures of a chain
// that was good are not verified again: they cost as much as a small request does
// otherwise, and a client shows the same chain with each. What changes is looked
// at every time: the day, and the pool of roots.
//
// The zero value is ready; it is safe for concurrent use.
type verifier struct {
	mu    sync.Mutex
	roots *x509.CertPool
	known *verified.Memory[validity] // under these roots
}

// validity is from when to when all certificates between a client's and a root
// are good.
type validity struct{ from, until time.Time }

// verify checks a chain, which is not empty, for use by a client.
func (v *verifier) verify(roots *x509.CertPool, chain []*x509.Certificate) error {
	known, credential, now := v.under(roots), hashOf(chain), time.Now()
	if good, ok := known.Get(credential); ok && !now.Before(good.from) && !now.After(good.until) {
		return nil
	}
	good, err := verify(roots, chain)
	if err != nil {
		return err
	}
	known.Put(credential, good)
	return nil
}

// under is what is known with a pool of roots; other roots forget it.
func (v *verifier) under(roots *x509.CertPool) *verified.Memory[validity] {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known == nil || v.roots != roots {
		v.roots, v.known = roots, &verified.Memory[validity]{}
	}
	return v.known
}

// hashOf names a chain: its certificates in their order. Each is DER, which says
// where it ends.
func hashOf(chain []*x509.Certificate) verified.Hash {
	if len(chain) == 1 {
		return sha256.Sum256(chain[0].Raw)
	}
	h := sha256.New()
	for _, c := range chain {
		h.Write(c.Raw)
	}
	return verified.Hash(h.Sum(nil))
}

// verify checks a chain without any memory, and says how long it is good; of
// several ways to a root, the one that is good longest counts.
func verify(roots *x509.CertPool, chain []*x509.Certificate) (validity, error) {
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
		return validity{}, fmt.Errorf("verifying certificate SN=%d, SKID=%s, AKID=%s failed: %w",
			leaf.SerialNumber, columnSeparatedHex(leaf.SubjectKeyId), columnSeparatedHex(leaf.AuthorityKeyId), err)
	}
	var longest validity
	for _, way := range ways {
		v := validity{leaf.NotBefore, leaf.NotAfter}
		for _, c := range way {
			if c.NotBefore.After(v.from) {
				v.from = c.NotBefore
			}
			if c.NotAfter.Before(v.until) {
				v.until = c.NotAfter
			}
		}
		if v.until.After(longest.until) {
			longest = v
		}
	}
	return longest, nil
}
