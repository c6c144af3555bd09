// SPDX-License-Identifier: Apache-2.0

package serviceaccount

import "github.com/go-jose/go-jose/v4/jwt"

// claims are what a token says once its signature is known to be good. They are
// shared and never changed.
type claims struct {
	public  jwt.Claims
	private privateClaims
	legacy  legacyClaims
}
