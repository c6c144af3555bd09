// SPDX-License-Identifier: Apache-2.0

package list

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
)

// token is the content of a continue parameter, as upstream lays it out.
type token struct {
	APIVersion string `json:"v"`
	Revision   int64  `json:"rv"`
	Start      string `json:"start"`
}

const tokenVersion = "meta.k8s.io/v1"

// encodeToken returns the parameter that goes on at key, below prefix, at a
// revision; a negative revision means whatever is newest then.
func encodeToken(key, prefix string, revision int64) string {
	data, err := json.Marshal(token{tokenVersion, revision, strings.TrimPrefix(key, prefix)})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

// decodeToken returns the key and revision a parameter goes on at. The key is
// always below prefix.
func decodeToken(parameter, prefix string) (key string, revision int64, err error) {
	const invalid = "continue key is not valid"
	data, err := base64.RawURLEncoding.DecodeString(parameter)
	if err != nil {
		return "", 0, fmt.Errorf(invalid+": %w", err)
	}
	var t token
	if err := json.Unmarshal(data, &t); err != nil {
		return "", 0, fmt.Errorf(invalid+": %w", err)
	}
	switch {
	case t.APIVersion != tokenVersion:
		return "", 0, fmt.Errorf(invalid+": server does not recognize this encoded version %v", t.APIVersion)
	case t.Revision == 0:
		return "", 0, errors.New(invalid + ": incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
	case t.Start == "":
		return "", 0, errors.New(invalid + ": encoded start key empty (version meta.k8s.io/v1)")
	}
	// A key that is not clean could leave the prefix.
	start := t.Start
	if !strings.HasPrefix(start, "/") {
		start = "/" + start
	}
	if path.Clean(start) != start {
		return "", 0, fmt.Errorf(invalid+": %v", t.Start)
	}
	return prefix + start[1:], t.Revision, nil
}
