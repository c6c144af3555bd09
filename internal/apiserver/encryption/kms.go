// SPDX-License-Identifier: Apache-2.0

package encryption

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/metrics"
	kms "k8s.io/kms/pkg/service"
)

// How often a plug-in is asked how it is, as upstream asks.
const (
	askHealthy = time.Minute
	askFailing = 3 * time.Second
	// seedLife is how long a plug-in may be away before writes fail.
	seedLife = 3 * time.Minute
	// answerLife is how long a good answer serves health checks.
	answerLife = 20 * time.Second
)

// plugin is one KMS plug-in. Values are encrypted by keys derived from a seed
// that the plug-in has encrypted; the seed is made anew when the plug-in's key
// changes.
type plugin struct {
	name     string
	serverID string
	service  kms.Service
	state    atomic.Pointer[kmsv2.State]

	mu      sync.Mutex // guards all below, and the asking
	version string     // of the API, which must not change
	asked   time.Time
	err     error
}

// kms makes the transformer of a plug-in, and watches the plug-in until ctx
// ends.
func (s *set) kms(ctx context.Context, c *apiserver.KMSConfiguration) (value.PrefixTransformer, error) {
	switch c.APIVersion {
	case "v2":
	case "v1":
		return value.PrefixTransformer{}, errors.New("KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.") //nolint:staticcheck // upstream's words
	default:
		return value.PrefixTransformer{}, fmt.Errorf("could not configure KMS plugin %q, unsupported KMS API version %q", c.Name, c.APIVersion)
	}
	metrics.RegisterMetrics()
	service, err := kmsv2.NewGRPCService(ctx, c.Endpoint, c.Name, c.Timeout.Duration)
	if err != nil {
		return value.PrefixTransformer{}, fmt.Errorf("could not configure KMSv2-Plugin's probe %q, error: %w", c.Name, err)
	}
	p := &plugin{name: c.Name, serverID: s.serverID, service: service}
	p.state.Store(&kmsv2.State{KMSProviderName: c.Name})
	s.plugins = append(s.plugins, p)
	s.timeouts += c.Timeout.Duration
	// A plug-in that is there serves from the start.
	_ = p.check(ctx)
	s.running.Go(func() { p.run(ctx) })
	return value.PrefixTransformer{
		Transformer: kmsv2.NewEnvelopeTransformer(service, c.Name, p.current, s.serverID),
		Prefix:      []byte(prefixKMS + c.Name + ":"),
	}, nil
}

// run asks the plug-in now and then until ctx ends.
func (p *plugin) run(ctx context.Context) {
	for {
		next := askHealthy
		if p.check(ctx) != nil {
			next = askFailing
		}
		select {
		case <-time.After(next):
		case <-ctx.Done():
			return
		}
	}
}

// wait returns once the plug-in is healthy.
func (p *plugin) wait(ctx context.Context) error {
	for {
		err := p.check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// check asks the plug-in how it is, unless it was just asked.
func (p *plugin) check(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil && !p.asked.IsZero() && time.Since(p.asked) < answerLife {
		return nil
	}
	status, err := p.service.Status(ctx)
	if err != nil {
		err = fmt.Errorf("failed to perform status section of the healthz check for KMS Provider %s, error: %w", p.name, err)
	} else if err = p.take(ctx, status); err != nil {
		err = fmt.Errorf("kmsv2 Provider %s is not healthy, error: %w", p.name, err)
	}
	p.asked, p.err = time.Now(), err
	return err
}

// forget lets the next check ask.
func (p *plugin) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = time.Time{}
}

// take judges a plug-in's answer and follows a change of its key.
func (p *plugin) take(ctx context.Context, status *kms.StatusResponse) error {
	var errs []error
	if status.Healthz != "ok" {
		errs = append(errs, fmt.Errorf("got unexpected healthz status: %s", status.Healthz))
	}
	switch {
	case status.Version != kmsv2.KMSAPIVersionv2 && status.Version != kmsv2.KMSAPIVersionv2beta1:
		errs = append(errs, fmt.Errorf("expected KMSv2 API version %s, got %s", kmsv2.KMSAPIVersionv2, status.Version))
	case p.version == "":
		p.version = status.Version
	case p.version != status.Version:
		errs = append(errs, fmt.Errorf("KMSv2 API version should not change after the initial status response version %s, got %s", p.version, status.Version))
	}
	if code, err := kmsv2.ValidateKeyID(status.KeyID); err != nil {
		metrics.RecordInvalidKeyIDFromStatus(p.name, string(code))
		errs = append(errs, fmt.Errorf("got invalid KMSv2 KeyID hash %q: %w", kmsv2.GetHashIfNotEmpty(status.KeyID), err))
		return errors.Join(errs...)
	}
	metrics.RecordKeyIDFromStatus(p.name, status.KeyID, p.serverID)
	return errors.Join(append(errs, p.follow(ctx, status.KeyID))...)
}

// follow makes a new seed when the plug-in's key is another one, and otherwise
// lets the present seed live on. When that fails the present one stays until it
// expires.
func (p *plugin) follow(ctx context.Context, keyID string) error {
	expires := time.Now().Add(seedLife)
	state, err := p.current()
	if err == nil && state.EncryptedObjectKeyID == keyID {
		state.ExpirationTimestamp = expires
		p.state.Store(&state)
		return nil
	}
	uid := uuid.NewString()
	transformer, sealed, cacheKey, err := kmsv2.GenerateTransformer(ctx, uid, p.service, true)
	if err != nil {
		return fmt.Errorf("failed to rotate DEK uid=%q: %w", uid, err)
	}
	if sealed.KeyID != keyID {
		return fmt.Errorf("failed to rotate DEK uid=%q: statusKeyIDHash=%q, encryptKeyIDHash=%q", uid, kmsv2.GetHashIfNotEmpty(keyID), kmsv2.GetHashIfNotEmpty(sealed.KeyID))
	}
	p.state.Store(&kmsv2.State{
		Transformer: transformer, UID: uid, ExpirationTimestamp: expires, CacheKey: cacheKey, KMSProviderName: p.name,
		EncryptedObjectKeyID: sealed.KeyID, EncryptedObjectEncryptedDEKSource: sealed.EncryptedDEKSource,
		EncryptedObjectAnnotations: sealed.Annotations, EncryptedObjectEncryptedDEKSourceType: sealed.EncryptedDEKSourceType,
	})
	return nil
}

// current is the seed in use.
func (p *plugin) current() (kmsv2.State, error) {
	state := *p.state.Load()
	if state.Transformer == nil {
		return kmsv2.State{}, errors.New("got unexpected nil transformer")
	}
	return state, nil
}
