// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Auth are credentials for a registry; the zero value is none.
type Auth struct {
	Username, Password string
	IdentityToken      string
	RegistryToken      string
}

// PullError tells why an image could not be had.
type PullError struct {
	// Reason says what to do about it.
	Reason PullReason
	Err    error
}

// PullReason sorts the failures of a pull.
type PullReason int

// The reasons.
const (
	PullFailed      PullReason = iota // anything else
	PullMalformed                     // the reference is none
	PullNotFound                      // the registry has no such image
	PullDenied                        // the credentials do not suffice
	PullUnreachable                   // no registry answers
)

func (e *PullError) Error() string { return e.Err.Error() }
func (e *PullError) Unwrap() error { return e.Err }

// pullTries is how often layers are asked for when the connection breaks.
const pullTries = 3

// Pull brings an image from its registry, or from a mirror of it. Layers that
// are here already are not transferred. A pull takes as long as bytes come; one
// that stalls is cut (see Config.Stall). tell, when given, hears how far the
// layers are, in one call at a time.
func (s *Store) Pull(ctx context.Context, image string, auth Auth, tell ...func(LayerProgress)) (*Image, error) {
	ref, err := parseReference(image)
	if err != nil {
		return nil, &PullError{PullMalformed, fmt.Errorf("failed to parse image reference %q: %w", image, err)}
	}
	img, err := s.pull(ctx, ref, auth, tell)
	if err == nil {
		return img, nil
	}
	reason := reasonOf(err)
	switch reason {
	case PullNotFound:
		err = fmt.Errorf("%s: not found", ref)
	case PullDenied:
		err = fmt.Errorf("pull access denied, repository does not exist or may require authorization: %w", err)
	}
	return nil, &PullError{reason, fmt.Errorf("failed to pull image %q: %w", ref, err)}
}

func reasonOf(err error) PullReason {
	if refused, ok := errors.AsType[*transport.Error](err); ok {
		switch refused.StatusCode {
		case http.StatusNotFound:
			return PullNotFound
		case http.StatusUnauthorized, http.StatusForbidden:
			return PullDenied
		}
		if refused.StatusCode >= 500 || refused.StatusCode == http.StatusTooManyRequests {
			return PullUnreachable
		}
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return PullUnreachable
	}
	return PullFailed
}

func (s *Store) pull(ctx context.Context, ref reference, auth Auth, tell []func(LayerProgress)) (*Image, error) {
	sources, err := s.hosts.sources(ref.registry(), "pull")
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, source := range sources {
		desc, err := s.resolve(ctx, ref, source, auth)
		if err != nil {
			errs = append(errs, err)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		img, err := s.take(ctx, ref, desc, tell)
		if err == nil {
			return img, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// take brings the image that a source describes. A connection that breaks is
// tried again, unless the registry sends nothing at all: layers that have come
// whole are not transferred twice.
func (s *Store) take(ctx context.Context, ref reference, desc *remote.Descriptor, tell []func(LayerProgress)) (*Image, error) {
	var tags []string
	if ref.digest == "" {
		tags = []string{ref.byTag()}
	} else if got := desc.Digest.String(); got != ref.digest {
		return nil, fmt.Errorf("the registry answered with digest %s, want %s", got, ref.digest)
	}
	from, err := desc.Image()
	if err != nil {
		return nil, err
	}
	var to *teller
	if len(tell) > 0 {
		to = &teller{tell: tell[0]}
	}
	for try := 1; ; try++ {
		img, err := s.add(ctx, from, tags, []string{ref.byDigest(desc.Digest.String())}, to)
		_, waited := errors.AsType[stalled](err)
		if err == nil || try == pullTries || ctx.Err() != nil || waited || !isBroken(err) {
			return img, err
		}
		s.cfg.Logger.Warn("pulling an image: the connection broke; trying again", "image", ref, "err", err)
	}
}

// isBroken is true for errors of a connection that may work when it is made anew.
func isBroken(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// resolve asks one source for the manifest.
func (s *Store) resolve(ctx context.Context, ref reference, source source, auth Auth) (*remote.Descriptor, error) {
	target, err := ref.at(source)
	if err != nil {
		return nil, err
	}
	return remote.Get(target,
		remote.WithContext(ctx), remote.WithTransport(source.transport),
		remote.WithAuth(s.authenticator(auth, target)), remote.WithUserAgent("kaji"),
		remote.WithPlatform(v1.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}))
}

func (s *Store) authenticator(auth Auth, target name.Reference) authn.Authenticator {
	if auth != (Auth{}) {
		return authn.FromConfig(authn.AuthConfig{
			Username: auth.Username, Password: auth.Password,
			IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
		})
	}
	if config, ok := dockerAuth(s.cfg.DockerConfig, target.Context().RegistryStr()); ok {
		return authn.FromConfig(config)
	}
	return authn.Anonymous
}
