// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// defaultRegistry completes references that name none.
const defaultRegistry = "docker.io"

// reference is a parsed image reference in full form.
type reference struct {
	// repository is "docker.io/library/busybox"; tag or digest follows.
	repository, tag, digest string
}

// parseReference completes a reference as users write it: the registry
// docker.io, its library of official images, and the tag latest.
func parseReference(s string) (reference, error) {
	rest, digest, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		algorithm, hex, _ := strings.Cut(digest, ":")
		if algorithm != "sha256" || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
			return reference{}, fmt.Errorf("invalid reference format: digest %q of %q", digest, s)
		}
	}
	tag := ""
	if i := strings.LastIndex(rest, ":"); i > strings.LastIndex(rest, "/") {
		if rest, tag = rest[:i], rest[i+1:]; tag == "" {
			return reference{}, fmt.Errorf("invalid reference format: empty tag of %q", s)
		}
	}
	first, path, ok := strings.Cut(rest, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" {
		first, path = defaultRegistry, rest
	}
	if first == "index.docker.io" {
		first = defaultRegistry
	}
	if first == defaultRegistry && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	if tag == "" && !hasDigest {
		tag = "latest"
	}
	r := reference{repository: first + "/" + path, tag: tag, digest: digest}
	if rest == "" || path == "" || strings.ToLower(path) != path {
		return reference{}, fmt.Errorf("invalid reference format: %q", s)
	}
	if _, err := name.NewRepository(r.repository, name.StrictValidation); err != nil {
		return reference{}, fmt.Errorf("invalid reference format: %q", s)
	}
	if tag != "" {
		if _, err := name.NewTag(r.repository+":"+tag, name.StrictValidation); err != nil {
			return reference{}, fmt.Errorf("invalid reference format: %q", s)
		}
	}
	return r, nil
}

// String is the full form: by digest where there is one, else by tag.
func (r reference) String() string {
	if r.digest != "" {
		return r.byDigest(r.digest)
	}
	return r.byTag()
}

func (r reference) byTag() string { return r.repository + ":" + r.tag }

func (r reference) byDigest(digest string) string { return r.repository + "@" + digest }

// registry is the host that a reference names.
func (r reference) registry() string {
	host, _, _ := strings.Cut(r.repository, "/")
	return host
}

// at is the reference as it is asked for at a host.
func (r reference) at(place source) (name.Reference, error) {
	named := place.host + strings.TrimPrefix(r.repository, r.registry())
	if r.digest != "" {
		named += "@" + r.digest
	} else {
		named += ":" + r.tag
	}
	var options []name.Option
	if place.plain {
		options = append(options, name.Insecure)
	}
	return name.ParseReference(named, options...)
}
