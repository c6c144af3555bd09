// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// tokenFile holds users by the digest of their token: looking a digest up
// tells nothing about the token by the time it takes.
type tokenFile map[[sha256.Size]byte]*user.DefaultInfo

// TokenFile reads a static token file: lines of token,user,uid and optionally
// "group1,group2" (--token-auth-file).
func TokenFile(file io.Reader) (authenticator.Token, error) {
	reader := csv.NewReader(file)
	reader.FieldsPerRecord = -1
	tokens := tokenFile{}
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return tokens, nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := reader.FieldPos(0)
		if len(record) < 3 {
			return nil, fmt.Errorf("token file: line %d must have at least 3 columns (token, user name, user uid), found %d", line, len(record))
		}
		if record[0] == "" {
			// An empty token is never matched; upstream passes over it too.
			continue
		}
		u := &user.DefaultInfo{Name: record[1], UID: record[2]}
		if len(record) >= 4 {
			for _, group := range strings.Split(record[3], ",") {
				if group = strings.TrimSpace(group); group != "" {
					u.Groups = append(u.Groups, group)
				}
			}
		}
		tokens[sha256.Sum256([]byte(record[0]))] = u
	}
}

// AuthenticateToken implements authenticator.Token.
func (t tokenFile) AuthenticateToken(_ context.Context, token string) (*authenticator.Response, bool, error) {
	u, ok := t[sha256.Sum256([]byte(token))]
	if !ok {
		return nil, false, nil
	}
	return &authenticator.Response{User: u}, true, nil
}
