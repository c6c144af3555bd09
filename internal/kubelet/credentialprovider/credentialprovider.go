// SPDX-License-Identifier: Apache-2.0

// Package credentialprovider asks programs of the machine for logins at registries:
// the exec plug-ins of a CredentialProviderConfig (KEP-2133), those that act with
// tokens of the pods' service accounts (KEP-4412) included. Answers are kept as long
// as they say. The agent's root asks it when an image is pulled. It never logs what
// a plug-in answered.
package credentialprovider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	configv1 "k8s.io/kubelet/config/v1"
	credentialv1 "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/kubelet/image"
)

const (
	// patience bounds what a plug-in may take to answer, most the answer's size.
	patience = time.Minute
	most     = 1 << 20
)

// Config is what Providers need.
type Config struct {
	// Providers are as Load returns them, Bin the directory of their programs.
	Providers []configv1.CredentialProvider
	Bin       string
	// Account reads a pod's service account, Token issues a token of it.
	Account func(ctx context.Context, pod *corev1.Pod) (*corev1.ServiceAccount, error)
	Token   func(ctx context.Context, pod *corev1.Pod, audience string) (string, error)
	Logger  *slog.Logger
}

// Providers are the plug-ins. They are safe for concurrent use.
type Providers struct {
	cfg Config

	mu    sync.Mutex
	cache map[string]answer // by plug-in, what the answer is good for, and whose token was shown
	turns map[string]*sync.Mutex
}

type answer struct {
	secret  *corev1.Secret
	expires time.Time
}

// New returns the plug-ins of a configuration.
func New(cfg Config) *Providers {
	return &Providers{cfg: cfg, cache: map[string]answer{}, turns: map[string]*sync.Mutex{}}
}

// Secrets are what the plug-ins know for an image, as pull secrets. A plug-in that
// fails is logged: the image may do without.
func (p *Providers) Secrets(ctx context.Context, pod *corev1.Pod, name string) []*corev1.Secret {
	var out []*corev1.Secret
	for i := range p.cfg.Providers {
		c := &p.cfg.Providers[i]
		if !slices.ContainsFunc(c.MatchImages, func(m string) bool { return image.Covers(m, name) }) {
			continue
		}
		secret, err := p.ask(ctx, c, pod, name)
		if err != nil {
			p.cfg.Logger.Error("Failed to provide credentials for image", "provider", c.Name, "image", name, "err", err)
			continue
		}
		if secret != nil {
			out = append(out, secret)
		}
	}
	return out
}

// identity is whose credentials a plug-in is asked for; the zero value is the
// node's.
type identity struct {
	token       string
	annotations map[string]string
	key         string
	account     *corev1.ServiceAccount
}

// identify finds out who a plug-in acts for; false says that it does not for a pod.
func (p *Providers) identify(ctx context.Context, c *configv1.CredentialProvider, pod *corev1.Pod) (id identity, ok bool, err error) {
	t := c.TokenAttributes
	if t == nil {
		return id, true, nil
	}
	if pod.Spec.ServiceAccountName == "" {
		return id, !ptr.Deref(t.RequireServiceAccount, true), nil
	}
	account, err := p.cfg.Account(ctx, pod)
	if err != nil {
		return id, false, fmt.Errorf("failed to get service account: %w", err)
	}
	id.account, id.annotations = account, map[string]string{}
	for _, key := range t.RequiredServiceAccountAnnotationKeys {
		value, has := account.Annotations[key]
		if !has {
			return id, false, nil
		}
		id.annotations[key] = value
	}
	for _, key := range t.OptionalServiceAccountAnnotationKeys {
		if value, has := account.Annotations[key]; has {
			id.annotations[key] = value
		}
	}
	if id.token, err = p.cfg.Token(ctx, pod, t.ServiceAccountTokenAudience); err != nil {
		return id, false, fmt.Errorf("failed to get service account token: %w", err)
	}
	parts := []string{account.Namespace, account.Name, string(account.UID)}
	if t.CacheType == configv1.TokenServiceAccountTokenCacheType {
		parts = append(parts, id.token)
	}
	for _, k := range slices.Sorted(maps.Keys(id.annotations)) {
		parts = append(parts, k, id.annotations[k])
	}
	id.key = fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(parts, "\x00"))))
	return id, true, nil
}

// ask returns what a plug-in says, now or before.
func (p *Providers) ask(ctx context.Context, c *configv1.CredentialProvider, pod *corev1.Pod, name string) (*corev1.Secret, error) {
	id, ok, err := p.identify(ctx, c, pod)
	if err != nil || !ok {
		return nil, err
	}
	registry, _, _ := strings.Cut(name, "/")
	key := func(kind credentialv1.PluginCacheKeyType) string {
		of := map[credentialv1.PluginCacheKeyType]string{credentialv1.ImagePluginCacheKeyType: name, credentialv1.RegistryPluginCacheKeyType: registry}[kind]
		return strings.Join([]string{c.Name, string(kind), of, id.key}, "\x00")
	}
	defer p.turn(key(credentialv1.ImagePluginCacheKeyType))()
	for _, kind := range []credentialv1.PluginCacheKeyType{credentialv1.ImagePluginCacheKeyType, credentialv1.RegistryPluginCacheKeyType, credentialv1.GlobalPluginCacheKeyType} {
		if secret := p.cached(key(kind)); secret != nil {
			return secret, nil
		}
	}
	r, err := p.run(ctx, c, &credentialv1.CredentialProviderRequest{TypeMeta: metav1.TypeMeta{APIVersion: c.APIVersion, Kind: "CredentialProviderRequest"},
		Image: name, ServiceAccountToken: id.token, ServiceAccountAnnotations: id.annotations})
	if err != nil {
		return nil, fmt.Errorf("failed to get credential from external registry credential provider: %w", err)
	}
	if !slices.Contains([]credentialv1.PluginCacheKeyType{credentialv1.ImagePluginCacheKeyType, credentialv1.RegistryPluginCacheKeyType, credentialv1.GlobalPluginCacheKeyType}, r.CacheKeyType) {
		return nil, fmt.Errorf("credential provider plugin did not return a valid cacheKeyType: %s", r.CacheKeyType)
	}
	auths := map[string]map[string]string{}
	for match, a := range r.Auth {
		if id.token != "" && a.Password == id.token && c.TokenAttributes.CacheType != configv1.TokenServiceAccountTokenCacheType {
			return nil, fmt.Errorf("credential provider plugin returned the service account token as the password which is not allowed when service account cache type is not set to 'Token'")
		}
		auths[match] = map[string]string{"username": a.Username, "password": a.Password}
	}
	data, err := json.Marshal(auths)
	if err != nil {
		return nil, err
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: c.Name}, Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{corev1.DockerConfigKey: data}}
	if id.account != nil { // whose the login is, for the records of images
		secret.Namespace = id.account.Namespace
		secret.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ServiceAccount", Name: id.account.Name, UID: id.account.UID}}
	}
	life := c.DefaultCacheDuration.Duration
	if r.CacheDuration != nil {
		life = r.CacheDuration.Duration
	}
	if life > 0 {
		p.keep(key(r.CacheKeyType), answer{secret, time.Now().Add(life)})
	}
	return secret, nil
}

// turn makes those wait who ask the same.
func (p *Providers) turn(key string) (done func()) {
	p.mu.Lock()
	t := p.turns[key]
	if t == nil {
		t = &sync.Mutex{}
		p.turns[key] = t
	}
	p.mu.Unlock()
	t.Lock()
	return t.Unlock
}

func (p *Providers) cached(key string) *corev1.Secret {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.cache[key]; ok && time.Now().Before(a.expires) {
		return a.secret
	}
	return nil
}

func (p *Providers) keep(key string, a answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.cache, func(_ string, old answer) bool { return time.Now().After(old.expires) })
	p.cache[key] = a
	if len(p.turns) > 1000 {
		p.turns = map[string]*sync.Mutex{} // those that hold one keep it
	}
}

// bounded is a buffer that takes no more than most.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(data []byte) (int, error) {
	if b.Len()+len(data) > most {
		return 0, fmt.Errorf("more than %d bytes", most)
	}
	return b.Buffer.Write(data)
}

// run asks the program.
func (p *Providers) run(ctx context.Context, c *configv1.CredentialProvider, q *credentialv1.CredentialProviderRequest) (*credentialv1.CredentialProviderResponse, error) {
	data, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("failed to encode auth request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out, said bounded
	cmd := exec.CommandContext(ctx, filepath.Join(p.cfg.Bin, c.Name), c.Args...) //nolint:gosec // the administrator's programs
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = bytes.NewReader(data), &out, &said, os.Environ()
	cmd.WaitDelay = time.Second
	for _, e := range c.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("error execing credential provider plugin %s for image %s: %w: %s", c.Name, q.Image, err, said.String())
	}
	r := &credentialv1.CredentialProviderResponse{}
	if json.Unmarshal(out.Bytes(), r) != nil || r.Kind != "CredentialProviderResponse" { // the answer may hold credentials
		return nil, fmt.Errorf("error decoding credential provider plugin response from stdout")
	}
	if r.APIVersion != c.APIVersion {
		return nil, fmt.Errorf("apiVersion from credential plugin response did not match expected apiVersion:%s, actual apiVersion:%s", c.APIVersion, r.APIVersion)
	}
	return r, nil
}
