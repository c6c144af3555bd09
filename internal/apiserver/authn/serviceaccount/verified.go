// SPDX-License-Identifier: Apache-2.0

package serviceaccount

import (
	"crypto/sha256"
	"sync"

	"github.com/go-jose/go-jose/v4/jwt"
)

// claims are what a token says once its signature is known to be good. They are
// shared and never changed.
type claims struct {
	public  jwt.Claims
	private privateClaims
	legacy  legacyClaims
}

// verified remembers the tokens whose signature was verified: clients show the
// same one with every request, and the keys do not change under a Validator.
// It says nothing of whether a token is still good: times, accounts and what the
// token is bound to are judged at every use, so that a revocation bites at once.
//
// Tokens are kept by their hash, in two generations of bounded size: whatever is
// in use moves to the young one before the old one is let go.
type verified struct {
	mu         sync.Mutex
	young, old map[[sha256.Size]byte]*claims
}

// generation is how many tokens one generation holds: some 2 MB in all.
const generation = 2048

// get returns the claims of a token that was verified before, or nil.
func (v *verified) get(token [sha256.Size]byte) *claims {
	v.mu.Lock()
	defer v.mu.Unlock()
	if c := v.young[token]; c != nil {
		return c
	}
	c := v.old[token]
	if c != nil {
		v.putLocked(token, c)
	}
	return c
}

func (v *verified) put(token [sha256.Size]byte, c *claims) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.putLocked(token, c)
}

func (v *verified) putLocked(token [sha256.Size]byte, c *claims) {
	if v.young == nil || len(v.young) >= generation {
		v.young, v.old = map[[sha256.Size]byte]*claims{}, v.young
	}
	v.young[token] = c
}
