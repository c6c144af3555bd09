// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net/http"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// certificates recognises client certificates: the common name is the user,
// the organizations are the groups.
type certificates struct {
	roots    func() *x509.CertPool
	verifier verifier
}

// uidAttribute is the subject attribute that carries a user's UID (KEP-2799's
// sibling for certificates, beta in 1.34).
var uidAttribute = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}

func (c *certificates) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	leaf := r.TLS.PeerCertificates[0]
	known, err := c.verifier.verify(c.roots(), r.TLS.PeerCertificates)
	if err != nil {
		return nil, false, err
	}
	if leaf.Subject.CommonName == "" {
		return nil, false, nil
	}
	uid, err := certificateUID(leaf)
	if err != nil {
		return nil, false, err
	}
	return &authenticator.Response{User: &user.DefaultInfo{
		Name: leaf.Subject.CommonName, UID: uid, Groups: leaf.Subject.Organization,
		Extra: map[string][]string{user.CredentialIDKey: {known.credential}},
	}}, true, nil
}

func columnSeparatedHex(id []byte) string {
	out := make([]byte, 0, len(id)*3)
	for i, b := range id {
		if i > 0 {
			out = append(out, ':')
		}
		out = append(out, hex.EncodeToString([]byte{b})...)
	}
	return string(out)
}

func certificateUID(leaf *x509.Certificate) (string, error) {
	uid := ""
	for _, name := range leaf.Subject.Names {
		if !name.Type.Equal(uidAttribute) {
			continue
		}
		value, ok := name.Value.(string)
		switch {
		case !ok:
			return "", fmt.Errorf("unable to parse UID into a string")
		case value == "":
			return "", fmt.Errorf("UID cannot be an empty string")
		case uid != "":
			return "", fmt.Errorf("expected 1 UID, but found multiple: [%s %s]", uid, value)
		}
		uid = value
	}
	return uid, nil
}
