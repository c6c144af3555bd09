// SPDX-License-Identifier: Apache-2.0

// Package serviceaccount issues and judges the tokens of ServiceAccounts: JWTs
// signed by the cluster, bound to the ServiceAccount and often to a pod, and
// void once one of these is gone. The authentication chain and the subresource
// serviceaccounts/token call it.
//
// It reads objects through a function and writes nothing.
package serviceaccount

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// algorithms are the ones accepted; "none" and the symmetric ones never are.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512}

// publicKey is a verifying key with its id.
type publicKey struct {
	id        string
	algorithm jose.SignatureAlgorithm
	key       crypto.PublicKey
}

// describe derives the key id, the hash of the key as upstream computes it, and
// the algorithm that goes with the key.
func describe(key crypto.PublicKey) (publicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return publicKey{}, fmt.Errorf("service account key: %w", err)
	}
	sum := sha256.Sum256(der)
	p := publicKey{id: base64.RawURLEncoding.EncodeToString(sum[:]), key: key}
	switch k := key.(type) {
	case *rsa.PublicKey:
		p.algorithm = jose.RS256
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			p.algorithm = jose.ES256
		case elliptic.P384():
			p.algorithm = jose.ES384
		case elliptic.P521():
			p.algorithm = jose.ES512
		default:
			return publicKey{}, fmt.Errorf("service account key: unknown elliptic curve %s, must be 256, 384, or 521", k.Curve.Params().Name)
		}
	default:
		return publicKey{}, fmt.Errorf("service account key: unknown key type %T, must be *rsa.PublicKey or *ecdsa.PublicKey", key)
	}
	return p, nil
}

// KeySet returns the JSON Web Key Set that lets others verify tokens
// (/openid/v1/jwks).
func KeySet(keys []crypto.PublicKey) ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, key := range keys {
		p, err := describe(key)
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: p.key, KeyID: p.id, Algorithm: string(p.algorithm), Use: "sig"})
	}
	return json.Marshal(set)
}

// Discovery returns the OpenID provider configuration of an issuer
// (/.well-known/openid-configuration).
func Discovery(issuer, jwksURI string, keys []crypto.PublicKey) ([]byte, error) {
	seen, algs := map[string]bool{}, []string{}
	for _, key := range keys {
		p, err := describe(key)
		if err != nil {
			return nil, err
		}
		if a := string(p.algorithm); !seen[a] {
			seen[a] = true
			algs = append(algs, a)
		}
	}
	return json.Marshal(struct {
		Issuer        string   `json:"issuer"`
		JWKSURI       string   `json:"jwks_uri"`
		ResponseTypes []string `json:"response_types_supported"`
		SubjectTypes  []string `json:"subject_types_supported"`
		SigningAlgs   []string `json:"id_token_signing_alg_values_supported"`
	}{issuer, jwksURI, []string{"id_token"}, []string{"public"}, algs})
}
