// SPDX-License-Identifier: Apache-2.0

package serviceaccounttoken

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
)

// issuer is that of all tokens kept in Secrets.
const issuer = "kubernetes/serviceaccount"

// claims are what such a token says besides issuer and subject.
type claims struct {
	Namespace string `json:"kubernetes.io/serviceaccount/namespace"`
	Secret    string `json:"kubernetes.io/serviceaccount/secret.name"`
	Account   string `json:"kubernetes.io/serviceaccount/service-account.name"`
	UID       string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

// issue returns a token of an account, good as long as the Secret stands.
func issue(key crypto.Signer, account *corev1.ServiceAccount, secret string) (string, error) {
	algorithm := jose.RS256
	switch public := key.Public().(type) {
	case *rsa.PublicKey:
	case *ecdsa.PublicKey:
		switch public.Curve.Params().BitSize {
		case 256:
			algorithm = jose.ES256
		case 384:
			algorithm = jose.ES384
		default:
			algorithm = jose.ES512
		}
	default:
		return "", fmt.Errorf("unknown public key type: %T", public)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	id := base64.RawURLEncoding.EncodeToString(sum[:])
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: id, Algorithm: string(algorithm), Use: "sig"}}, nil)
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(jwt.Claims{Issuer: issuer, Subject: "system:serviceaccount:" + account.Namespace + ":" + account.Name}).
		Claims(claims{account.Namespace, secret, account.Name, string(account.UID)}).Serialize()
}
